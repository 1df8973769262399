use std::num::NonZeroU32;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

#[test]
fn shorter_names_come_first_then_bytes_decide() {
    let mut names = ["zeta", "s10", "s9", "alphabet", "beta", "S9"];
    names.sort_by(|a, b| server_order(a, b));
    assert_eq!(names, ["S9", "s9", "s10", "beta", "zeta", "alphabet"]);
}

#[test]
fn an_ejected_server_gets_nothing_and_keeps_its_number() {
    for distribution in Distribution::ALL {
        let spec = spec(distribution, &[1, 1, 1]);
        let table = RouteTable::build(&spec, &[true, false, true], 7);
        let mut seen = [0; 3];
        let mut rng = Rng::new(1);
        for key in 0..300 {
            let server = table.route(format!("key:{key}").as_bytes(), &mut rng).expect("live");
            seen[usize::from(server.0)] += 1;
        }
        assert_eq!(table.epoch(), 7);
        assert_eq!(seen[1], 0, "{distribution:?}");
        assert!(seen[0] > 50 && seen[2] > 50, "{distribution:?} {seen:?}");
        assert_eq!(table.points_per_server()[1], 0);
    }
}

#[test]
fn shares_are_what_keys_find() {
    for distribution in Distribution::ALL {
        let spec = spec(distribution, &[1, 3, 1, 2]);
        let table = RouteTable::build(&spec, &[true, true, false, true], 7);
        let shares = table.shares();
        assert!((999_990..=1_000_000).contains(&shares.iter().sum::<u32>()), "{shares:?}");
        let mut seen = [0_u32; 4];
        let mut rng = Rng::new(1);
        for key in 0..40_000 {
            let server = table.route(format!("key:{key}").as_bytes(), &mut rng).expect("live");
            seen[usize::from(server.0)] += 25;
        }
        for (share, seen) in shares.iter().zip(seen) {
            assert!(share.abs_diff(seen) < 20_000, "{distribution:?} {shares:?} {seen}");
        }
    }
    let alone = RouteTable::build(&spec(Distribution::Ketama, &[1, 1]), &[false, true], 1);
    assert_eq!(alone.shares(), [0, 1_000_000]);
    let nobody = RouteTable::build(&spec(Distribution::Ketama, &[1, 1]), &[false, false], 1);
    assert_eq!(nobody.shares(), [0, 0]);
}

#[test]
fn ketama_moves_only_the_keys_of_an_ejected_server() {
    let spec = spec(Distribution::Ketama, &[1; 5]);
    let before = RouteTable::build(&spec, &[true; 5], 1);
    let after = RouteTable::build(&spec, &[true, true, false, true, true], 2);
    for key in 0..1000 {
        let key = format!("key:{key}");
        let old = route(&before, key.as_bytes());
        if old != Some(ServerId(2)) {
            assert_eq!(route(&after, key.as_bytes()), old, "{key}");
        }
    }
}

#[test]
fn a_returned_server_finds_its_keys_again() {
    let spec = spec(Distribution::Ketama, &[3, 1, 2]);
    let before = RouteTable::build(&spec, &[true; 3], 1);
    let after = RouteTable::build(&spec, &[true; 3], 3);
    for key in 0..300 {
        let key = format!("key:{key}");
        assert_eq!(route(&before, key.as_bytes()), route(&after, key.as_bytes()));
    }
}

#[test]
fn nobody_live_routes_nowhere() {
    for distribution in Distribution::ALL {
        let table = RouteTable::build(&spec(distribution, &[1, 1]), &[false, false], 1);
        assert_eq!(route(&table, b"key"), None);
        assert_eq!(table.explain(b"key").reason, RouteReason::Nobody);
        assert_eq!(table.points_per_server(), [0, 0]);
    }
}

#[test]
fn the_only_live_server_gets_every_key_unhashed() {
    for distribution in Distribution::ALL {
        let table = RouteTable::build(&spec(distribution, &[1, 1]), &[false, true], 1);
        for key in [&b""[..], b"a", b"key:1"] {
            assert_eq!(route(&table, key), Some(ServerId(1)));
            assert_eq!(table.explain(key).hash(), None);
        }
    }
}

#[test]
fn an_empty_key_has_hash_zero_whatever_the_function() {
    for hash in Hash::ALL {
        let spec = RouteSpec { hash, ..spec(Distribution::Modula, &[1, 1, 1]) };
        let table = RouteTable::build(&spec, &[true; 3], 1);
        assert_eq!(table.explain(b"").hash(), Some(0), "{hash:?}");
        assert_eq!(route(&table, b""), Some(ServerId(0)));
    }
}

#[test]
fn keys_with_one_tag_meet_on_one_server() {
    let spec = RouteSpec { hash_tag: HashTag::parse("{}"), ..spec(Distribution::Ketama, &[1; 8]) };
    let table = RouteTable::build(&spec, &[true; 8], 1);
    let server = route(&table, b"{42}");
    for key in 0..100 {
        assert_eq!(route(&table, format!("key:{key}:{{42}}").as_bytes()), server);
    }
    assert_eq!(table.explain(b"a{42}b").hashed, b"42");
}

#[test]
fn random_reaches_every_live_server_and_ignores_weights() {
    let table = RouteTable::build(&spec(Distribution::Random, &[1, 1000, 1]), &[true; 3], 1);
    let mut rng = Rng::new(3);
    let mut seen = [0; 3];
    for _ in 0..3000 {
        seen[usize::from(table.route(b"same", &mut rng).expect("live").0)] += 1;
    }
    assert!(seen.iter().all(|&count| (900..1100).contains(&count)), "{seen:?}");
    assert_eq!(table.explain(b"same").reason, RouteReason::Chance { servers: 3 });
    assert_eq!(table.explain(b"same").server(), None);
}

#[test]
fn a_far_lighter_server_has_no_points() {
    let table = RouteTable::build(&spec(Distribution::Ketama, &[100, 1]), &[true; 2], 1);
    assert_eq!(table.points_per_server(), [316, 0]);
}

#[test]
fn a_table_can_be_shared_between_threads() {
    fn is_shareable<T: Send + Sync>() {}
    is_shareable::<RouteTable>();
}

#[test]
fn a_table_of_other_names_is_not_built_upon() {
    let old = spec(Distribution::Ketama, &[1; 4]);
    let mut new = old.clone();
    new.servers[3].name = "serverZZZZZ".to_owned();
    let table = RouteTable::build(&old, &[true; 4], 1).rebuild(&new, &[true; 4], 2);
    assert_eq!(ring(&table), ring(&RouteTable::build(&new, &[true; 4], 2)));
}

#[test]
fn a_server_with_more_digests_than_a_point_can_count_is_laid_out_anew() {
    let name = |id: u16| format!("server{id:05}");
    let names: Vec<String> = (0..1700).map(name).collect();
    let members: Vec<Member<'_>> = (0..)
        .zip(&names)
        .map(|(id, name)| Member {
            id: ServerId(id),
            name,
            weight: NonZeroU32::new(if id == 0 { 1_000_000_000 } else { 1 }).expect("not zero"),
        })
        .collect();
    let before = Ring::build(&members);
    assert!(before.len() > 4 * 65_536);
    let fewer = &members[..1650];
    assert!(before.rebuild(fewer) == Ring::build(fewer));
}

proptest! {
    #[test]
    fn rebuilding_makes_the_same_ring_as_building(
        weights in prop::collection::vec(1_u32..40, 25),
        turns in prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.9), 25), 4),
        is_equal in any::<bool>(),
    ) {
        let weights = if is_equal { vec![1; 25] } else { weights };
        let spec = spec(Distribution::Ketama, &weights);
        let mut table = RouteTable::build(&spec, &[true; 25], 0);
        for (epoch, live) in (1..).zip(turns) {
            table = table.rebuild(&spec, &live, epoch);
            let built = RouteTable::build(&spec, &live, epoch);
            prop_assert_eq!(table.epoch(), epoch);
            prop_assert_eq!(ring(&table), ring(&built));
            prop_assert_eq!(table.points_per_server(), built.points_per_server());
        }
    }

    #[test]
    fn a_ring_lookup_is_a_linear_search(
        weights in prop::collection::vec(1_u32..40, 1..50),
        hashes in prop::collection::vec(any::<u32>(), 50),
    ) {
        let spec = spec(Distribution::Ketama, &weights);
        let ring = Ring::build(&spec.members(&vec![true; weights.len()]));
        let borders = ring.points().flat_map(|point| {
            [point.value.wrapping_sub(1), point.value, point.value.wrapping_add(1)]
        });
        let hashes = hashes.into_iter().chain(borders.step_by(7)).chain([0, u32::MAX]);
        for hash in hashes {
            let naive = ring.points().find(|point| point.value >= hash).or_else(|| ring.points().next());
            prop_assert_eq!(ring.point_at(hash), naive);
            prop_assert_eq!(ring.server_at(hash), naive.map(|point| point.server));
        }
    }

    #[test]
    fn an_explanation_names_the_server_of_the_route(
        key in prop::collection::vec(any::<u8>(), 0..40),
        is_ketama in any::<bool>(),
        hash in prop::sample::select(&Hash::ALL),
        live in prop::collection::vec(any::<bool>(), 6),
    ) {
        let distribution = if is_ketama { Distribution::Ketama } else { Distribution::Modula };
        let spec = RouteSpec {
            hash,
            hash_tag: HashTag::parse("{}"),
            ..spec(distribution, &[1, 2, 3, 4, 5, 6])
        };
        let table = RouteTable::build(&spec, &live, 1);
        let server = route(&table, &key);
        prop_assert_eq!(table.explain(&key).server(), server);
        prop_assert_eq!(server.is_some(), live.contains(&true));
        prop_assert!(server.is_none_or(|server| live[usize::from(server.0)]));
    }
}

fn route(table: &RouteTable, key: &[u8]) -> Option<ServerId> {
    table.route(key, &mut Rng::new(0))
}

fn ring(table: &RouteTable) -> Option<&Ring> {
    if let Dispatch::Ketama(ring) = &table.dispatch { Some(ring) } else { None }
}

fn spec(distribution: Distribution, weights: &[u32]) -> RouteSpec {
    // Murmur, because fnv1a_64 leaves keys that differ at the end side by side on a ring.
    let mut spec =
        RouteSpec { hash: Hash::Murmur, hash_tag: None, distribution, servers: Vec::new() };
    for (number, &weight) in weights.iter().enumerate() {
        let weight = NonZeroU32::new(weight).expect("not zero");
        spec.servers.push(RouteServer { name: format!("server{number:05}"), weight });
    }
    spec
}
