//! Where the masters of shards are and who watches them, as JSON and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::metrics::Gathered;
use crate::io::{ShardCondition, ShardNews};
use crate::stats::{Chronicle, MasterFigures, Told, WatchFigures};
use crate::wire::json::Json;

/// Entries of a chronicle that are shown for each master.
const SHOWN_MAX: usize = 60;

/// All that is known of masters.
#[derive(Debug, Default)]
pub struct Watched {
    /// What whoever watches them knows; none while nobody does.
    pub figures: Option<WatchFigures>,
    /// What routing was last told of each shard.
    pub shards: BTreeMap<String, ShardNews>,
    /// What happened.
    pub chronicle: Chronicle,
}

/// Returns the word for a condition.
pub const fn condition(condition: ShardCondition) -> &'static str {
    match condition {
        ShardCondition::Serving => "serving",
        ShardCondition::Suspected => "suspected",
        ShardCondition::Moving => "moving",
        ShardCondition::Fenced => "fenced",
    }
}

/// Writes the shards and who watches them as keys of an object.
pub(super) fn write(json: &mut Json, all: &Gathered<'_>) {
    let watched = all.watched;
    json.key("shards").array(|json| {
        for (name, news) in &watched.shards {
            json.object(|json| {
                json.key("name").text(name);
                json.key("epoch").number(news.epoch);
                json.key("address").text(&news.address.to_string());
                json.key("condition").text(condition(news.condition));
                if let Some(at) = watched.chronicle.last_switch(name) {
                    json.key("last_switch_unix_micros").number(at);
                }
            });
        }
    });
    let Some(figures) = &watched.figures else { return };
    json.key("sentinel").object(|json| {
        json.key("mode").text(figures.mode);
        json.key("id").text(&figures.id);
        json.key("is_in_tilt").boolean(figures.is_in_tilt);
        json.key("masters").array(|json| {
            figures.masters.iter().for_each(|of| master(json, of, &watched.chronicle));
        });
    });
}

fn master(json: &mut Json, of: &MasterFigures, chronicle: &Chronicle) {
    json.object(|json| {
        json.key("name").text(&of.name);
        json.key("address").text(&of.address);
        json.key("config_epoch").number(of.config_epoch);
        json.key("status").text(of.status);
        json.key("quorum").number(of.quorum);
        json.key("has_quorum").boolean(of.has_quorum);
        json.key("quorum_text").text(&of.quorum_text);
        json.key("down_after_ms").millis(of.down_after);
        if let Some(ago) = of.answered_ago {
            json.key("answered_ago_ms").millis(ago);
        }
        json.key("replicas").array(|json| {
            for replica in &of.replicas {
                json.object(|json| {
                    json.key("address").text(&replica.address);
                    json.key("is_up").boolean(replica.is_up);
                    if let Some(offset) = replica.offset {
                        json.key("offset").number(offset);
                    }
                });
            }
        });
        json.key("peers").array(|json| {
            for peer in &of.peers {
                json.object(|json| {
                    json.key("id").text(&peer.id);
                    json.key("address").text(&peer.address);
                    json.key("is_up").boolean(peer.is_up);
                });
            }
        });
        json.key("reasons").array(|json| {
            for reason in &of.reasons {
                json.text(reason);
            }
        });
        json.key("events").array(|json| {
            for told in last(chronicle, &of.name) {
                json.object(|json| {
                    json.key("unix_micros").number(told.unix_micros);
                    json.key("name").text(told.name);
                    json.key("text").text(&told.text);
                });
            }
        });
    });
}

fn last<'a>(chronicle: &'a Chronicle, name: &'a str) -> impl Iterator<Item = &'a Told> {
    let skipped = chronicle.about(name).count().saturating_sub(SHOWN_MAX);
    chronicle.about(name).skip(skipped)
}

/// Writes all that matters in lines for people.
pub(super) fn text(all: &Gathered<'_>, problem: Option<&str>, now_unix_seconds: u64) -> String {
    let mut out = String::new();
    let facts = all.facts;
    let up = now_unix_seconds.saturating_sub(facts.started_unix_seconds);
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "ringkeeper {} on {}, process {}, up {up} s, {} ({})",
        facts.version, facts.host_name, facts.process_id, facts.backend, facts.backend_reason
    );
    let _ = writeln!(out, "{}", problem.map_or("ready", str::trim_end));
    for pool in all.pools {
        let clients = pool.stats.client_connections;
        let drained = if pool.is_draining { ", drained" } else { "" };
        let _ = writeln!(out, "pool {}: {clients} clients{drained}", pool.name);
        for server in &pool.servers {
            let state = match (server.is_failing, server.is_in_ring) {
                (false, true) => "up",
                (true, true) => "down",
                (_, false) => "out of the ring",
            };
            let requests = server.stats.requests;
            let _ = writeln!(out, "  server {}: {state}, {requests} requests", server.name);
        }
    }
    for router in all.routers {
        let addresses: Vec<String> = router.addresses.iter().map(ToString::to_string).collect();
        let (name, state, addresses) = (&router.name, router.state.name(), addresses.join(" "));
        let _ = writeln!(out, "router {name}: {state}, priority {}, {addresses}", router.priority);
    }
    for (name, news) in &all.watched.shards {
        let at = news.address;
        let how = condition(news.condition);
        let _ = writeln!(out, "shard {name}: {how} at {at}, epoch {}", news.epoch);
    }
    let Some(figures) = &all.watched.figures else { return out };
    for master in &figures.masters {
        let up = master.replicas.iter().filter(|replica| replica.is_up).count();
        let peers = master.peers.iter().filter(|peer| peer.is_up).count();
        let _ = writeln!(
            out,
            "master {}: {} at {}, {up} of {} replicas up, {peers} of {} other Sentinels up, {}",
            master.name,
            master.status,
            master.address,
            master.replicas.len(),
            master.peers.len(),
            master.quorum_text
        );
    }
    out
}

/// Writes for each master what happened and what is in the way, for people: a line `master NAME`,
/// and indented lines below.
pub(super) fn explanation(watched: &Watched) -> String {
    let mut out = String::new();
    let Some(figures) = &watched.figures else {
        out.push_str("nobody watches masters here\n");
        return out;
    };
    for master in &figures.masters {
        let _ = writeln!(out, "master {}", master.name);
        for reason in &master.reasons {
            let _ = writeln!(out, "  {reason}");
        }
        let mut before = None;
        for told in last(&watched.chronicle, &master.name) {
            let since = before.map_or(0, |at| told.unix_micros.saturating_sub(at));
            before = Some(told.unix_micros);
            let (seconds, micros) = (told.unix_micros / 1_000_000, told.unix_micros % 1_000_000);
            let _ = writeln!(
                out,
                "  {seconds}.{micros:06} (+{}.{:03} ms) {} {}",
                since / 1000,
                since % 1000,
                told.name,
                told.text
            );
        }
    }
    out
}
