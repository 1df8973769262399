//! Golden vectors: what the genuine twemproxy 0.5 on x86-64 computes, hash by hash and key by key.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a bad vector fails the test")]

use std::num::NonZeroU32;
use std::path::Path;

use ringkeeper_core::distribution::Distribution;
use ringkeeper_core::hash::Hash;
use ringkeeper_core::id::ServerId;
use ringkeeper_core::rng::Rng;
use ringkeeper_core::routing::{HashTag, RouteServer, RouteSpec, RouteTable};
use serde_json::Value;

#[test]
fn every_hash_of_twemproxy_gives_its_values() {
    let file = read("hash_kat.json");
    let vectors = file["vectors"].as_array().expect("vectors");
    assert_eq!(vectors.len(), 12 * 24);
    for vector in vectors {
        let name = text(&vector["hash"]);
        let hash = Hash::from_name(name).expect("a known hash");
        let key = bytes_of_hex(text(&vector["key_hex"]));
        let value = u32::try_from(vector["value"].as_u64().expect("a number")).expect("32 bits");
        assert_eq!(hash.hash(&key), value, "{name} of {}", key.escape_ascii());
    }
}

#[test]
fn equal_servers_get_the_points_of_twemproxy() {
    let file = read("ketama_points_equal.json");
    let counts = file["points_per_server_equal_weights"].as_object().expect("an object");
    assert!(counts.len() >= 100);
    for (servers, points) in counts {
        let servers: usize = servers.parse().expect("a number");
        let points = u32::try_from(points.as_u64().expect("a number")).expect("32 bits");
        assert_eq!(points_of(&vec![1; servers]), vec![points; servers], "{servers} servers");
    }
}

#[test]
fn weighted_servers_get_the_points_of_twemproxy() {
    let file = read("ketama_points_weighted.json");
    let counts = file["points_per_server_weighted"].as_object().expect("an object");
    assert!(!counts.is_empty());
    for (weights, points) in counts {
        let weights: Vec<u32> =
            weights.split(',').map(|weight| weight.parse().expect("a number")).collect();
        assert_eq!(points_of(&weights), numbers(points), "weights {weights:?}");
    }
}

macro_rules! route_tables {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check_route_table(stringify!($name));
            }
        )*

        #[test]
        fn every_route_table_is_tested() {
            let mut tested = [$(concat!(stringify!($name), ".json")),*];
            tested.sort_unstable();
            let mut present: Vec<String> = std::fs::read_dir(directory())
                .expect("the directory of the vectors")
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
                .filter(|name| name.starts_with("route_"))
                .collect();
            present.sort_unstable();
            assert_eq!(tested.as_slice(), present);
        }
    };
}

route_tables! {
    route_fnv1_64_ketama route_fnv1_64_modula
    route_fnv1_ketama route_fnv1_modula
    route_fnv1a_32_ketama route_fnv1a_32_modula
    route_forty_ketama route_forty_modula
    route_hashtag_dollar_ketama route_hashtag_dollar_modula
    route_hashtag_ketama route_hashtag_modula
    route_mc11211_ketama route_mc11211_modula
    route_named4_ketama route_named4_modula
    route_sortorder_ketama route_sortorder_modula
    route_ten_ketama route_ten_modula
    route_two_ketama route_two_modula
    route_weighted5_ketama route_weighted5_modula
}

fn check_route_table(name: &str) {
    let file = read(&format!("{name}.json"));
    let spec = spec_of(&file["config"]);
    let names: Vec<&str> = spec.servers.iter().map(|server| server.name.as_str()).collect();
    let sorted: Vec<&str> =
        file["sorted_names"].as_array().expect("names").iter().map(text).collect();
    assert_eq!(names, sorted);

    let table = RouteTable::build(&spec, &vec![true; spec.servers.len()], 1);
    assert_eq!(table.points_per_server(), numbers(&file["points_per_server"]));

    let keys = file["keys_hex"].as_array().expect("keys");
    let servers = numbers(&file["sorted_index"]);
    assert_eq!((keys.len(), servers.len()), (1000, 1000));
    let mut rng = Rng::new(0);
    for (key, &server) in keys.iter().zip(&servers) {
        let key = bytes_of_hex(text(key));
        let server = ServerId(u16::try_from(server).expect("16 bits"));
        assert_eq!(table.route(&key, &mut rng), Some(server), "{}", key.escape_ascii());
        assert_eq!(table.explain(&key).server(), Some(server), "{}", key.escape_ascii());
    }
}

fn points_of(weights: &[u32]) -> Vec<u32> {
    let servers = weights.iter().enumerate().map(|(number, &weight)| RouteServer {
        name: format!("server{number:04}"),
        weight: NonZeroU32::new(weight).expect("not zero"),
    });
    let spec = RouteSpec {
        hash: Hash::Fnv1a_64,
        hash_tag: None,
        distribution: Distribution::Ketama,
        servers: servers.collect(),
    };
    RouteTable::build(&spec, &vec![true; weights.len()], 1).points_per_server().to_vec()
}

fn spec_of(config: &Value) -> RouteSpec {
    let servers = config["servers"].as_array().expect("servers");
    let mut spec = RouteSpec {
        hash: Hash::from_name(text(&config["hash"])).expect("a known hash"),
        hash_tag: config["hash_tag"].as_str().map(|tag| HashTag::parse(tag).expect("two bytes")),
        distribution: Distribution::from_name(text(&config["distribution"])).expect("known"),
        servers: servers.iter().map(|server| server_of(text(server))).collect(),
    };
    spec.sort_servers();
    spec
}

/// Reads `host:port:weight [name]`.
fn server_of(line: &str) -> RouteServer {
    let (address, name) = match line.split_once(' ') {
        Some((address, name)) => (address, Some(name)),
        None => (line, None),
    };
    let (place, weight) = address.rsplit_once(':').expect("a weight");
    let unnamed = place.strip_suffix(":11211").unwrap_or(place);
    RouteServer {
        name: name.unwrap_or(unnamed).to_owned(),
        weight: weight.parse().expect("a weight"),
    }
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/routing"))
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(name)).expect("a vector file");
    serde_json::from_str(&text).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn numbers(value: &Value) -> Vec<u32> {
    let number = |value: &Value| u32::try_from(value.as_u64().expect("a number")).expect("32 bits");
    value.as_array().expect("an array").iter().map(number).collect()
}

fn bytes_of_hex(hex: &str) -> Vec<u8> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs
        .iter()
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("a hexadecimal byte")
        })
        .collect()
}
