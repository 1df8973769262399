//! Tells operators where keys are, and why there.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use ringkeeper_core::config::nutcracker::{Address, Config, Pool};
use ringkeeper_core::id::ServerId;
use ringkeeper_core::routing::{RouteReason, RouteTable};

/// Explains each key in the named pool, or in all.
///
/// # Errors
///
/// There is no such pool; the text says which there are.
pub(crate) fn explain(
    config: &Config,
    pool: Option<&str>,
    keys: &[OsString],
) -> Result<String, String> {
    let pools: Vec<&Pool> =
        config.pools.iter().filter(|each| pool.is_none_or(|name| each.name == name)).collect();
    if pools.is_empty() {
        let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        let asked = pool.unwrap_or_default();
        return Err(format!("no pool is named '{asked}'; there are: {}", names.join(", ")));
    }
    let mut text = String::new();
    for pool in pools {
        let table = RouteTable::build(&pool.route_spec(), &vec![true; pool.servers.len()], 0);
        for key in keys {
            if !text.is_empty() {
                text.push('\n');
            }
            explain_one(&mut text, pool, &table, key.as_bytes());
        }
    }
    Ok(text)
}

/// Writes a block of `name  value` lines. Writing to a String can't fail, hence the `let _`.
fn explain_one(text: &mut String, pool: &Pool, table: &RouteTable, key: &[u8]) {
    let explanation = table.explain(key);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<8} {value}");
    };
    line("key", key.escape_ascii().to_string());
    line("pool", pool.name.clone());
    if explanation.hashed != key {
        line("hashed", format!("{} (its hash tag)", explanation.hashed.escape_ascii()));
    }
    if let Some(hash) = explanation.hash() {
        line("hash", format!("{} {hash} ({hash:#010x})", pool.hash.name()));
    }
    match explanation.reason {
        RouteReason::Nobody => line("shard", "none: no server gets keys".to_owned()),
        RouteReason::Only { server } => {
            line("point", "none: it is the only server".to_owned());
            shard(&mut line, pool, server);
        }
        RouteReason::Point { point, points, .. } => {
            let place = point.position.saturating_add(1);
            let value = point.value;
            line(
                "point",
                format!("{} {value} (point {place} of {points})", pool.distribution.name()),
            );
            shard(&mut line, pool, point.server);
        }
        RouteReason::Slot { slot, slots, server, .. } => {
            line("point", format!("{} slot {slot} of {slots}", pool.distribution.name()));
            shard(&mut line, pool, server);
        }
        RouteReason::Chance { servers } => {
            line("shard", format!("any of {servers}: each request draws one"));
        }
    }
}

fn shard(line: &mut impl FnMut(&str, String), pool: &Pool, id: ServerId) {
    let Some(server) = pool.servers.get(usize::from(id.0)) else { return };
    line("shard", format!("{} {}", id.0, server.name));
    let address = match &server.address {
        Address::Tcp(at) if at.host.contains(':') => format!("[{}]:{}", at.host, at.port),
        Address::Tcp(at) => format!("{}:{}", at.host, at.port),
        Address::Unix(path) => path.clone(),
    };
    line("server", address);
}
