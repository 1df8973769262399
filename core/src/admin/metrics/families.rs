//! Which metrics there are: name, kind, labels, help, and where the value comes from.

use super::Kind::{Counter, Gauge};
use super::{Family, Gathered, Kind, Samples, Source};
use std::time::Duration;

use crate::admin::watch::condition;
use crate::io::ShardCondition;
use crate::stats::{MasterFigures, PoolFigures, ServerFigures, WatchFigures, WorkerFigures};

const fn process(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    help: &'static str,
    write: fn(&Gathered<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind, labels, help, source: Source::Process(write) }
}

const fn pool(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&PoolFigures) -> u64,
) -> Family {
    Family { name, kind, labels: "pool", help, source: Source::Pool(value) }
}

const fn server(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&ServerFigures) -> u64,
) -> Family {
    Family { name, kind, labels: "pool, server", help, source: Source::Server(value) }
}

const fn special(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    help: &'static str,
    source: Source,
) -> Family {
    Family { name, kind, labels, help, source }
}

/// A figure of a master, under the name that redis_exporter gives it.
const fn master(
    name: &'static str,
    help: &'static str,
    value: fn(&MasterFigures) -> u64,
) -> Family {
    let labels = "master_name, master_address";
    Family { name, kind: Gauge, labels, help, source: Source::Master(value) }
}

/// Writes a figure of the Sentinel, if there is one.
fn of_watch(all: &Gathered<'_>, out: &mut Samples<'_>, value: fn(&WatchFigures) -> u64) {
    if let Some(figures) = &all.watched.figures {
        out.add(&[], value(figures));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn sum(all: &Gathered<'_>, value: fn(&WorkerFigures) -> u64) -> u64 {
    all.workers.iter().map(|worker| value(worker)).sum()
}

/// Every family, in the order of the output.
#[rustfmt::skip]
pub const FAMILIES: &[Family] = &[
    process("ringkeeper_build_info", Gauge, "version", "Always 1; the version is a label.",
        |all, out| out.add(&[("version", &all.facts.version)], 1)),
    process("ringkeeper_io_backend_info", Gauge, "backend, reason",
        "Always 1; what drives the sockets, and why it was chosen.", |all, out| {
            let (backend, reason) = (&all.facts.backend, &all.facts.backend_reason);
            out.add(&[("backend", backend), ("reason", reason)], 1);
        }),
    process("ringkeeper_start_time_seconds", Gauge, "",
        "When the service started, seconds since 1970.",
        |all, out| out.add(&[], all.facts.started_unix_seconds)),
    process("ringkeeper_config_last_reload_success", Gauge, "",
        "1 if the configuration that was read last is in use, 0 if it had errors.",
        |all, out| out.add(&[], u64::from(all.reload.is_good))),
    process("ringkeeper_config_last_reload_timestamp_seconds", Gauge, "",
        "When the configuration was last read, seconds since 1970.",
        |all, out| out.add(&[], all.reload.unix_seconds)),
    process("ringkeeper_worker_up", Gauge, "worker",
        "1 if the worker answered in time, else 0.", |all, out| {
            for worker in 0..all.workers_due {
                let is_up = all.workers.iter().any(|figures| figures.worker.0 == worker);
                out.add(&[("worker", &worker.to_string())], u64::from(is_up));
            }
        }),
    process("ringkeeper_worker_clients", Gauge, "worker", "Clients connected, by worker.",
        |all, out| {
            for figures in all.workers {
                let clients = figures.pools.iter().map(|pool| pool.stats.client_connections).sum();
                out.add(&[("worker", &figures.worker.0.to_string())], clients);
            }
        }),
    process("ringkeeper_draining", Gauge, "", "1 if no new clients are taken, else 0.",
        |all, out| out.add(&[], u64::from(all.workers.iter().any(|of| of.is_draining)))),
    process("ringkeeper_connections_made_total", Counter, "",
        "Connections with clients and servers made.",
        |all, out| out.add(&[], sum(all, |of| of.connections_made))),
    process("ringkeeper_connections", Gauge, "", "Connections with clients and servers open.",
        |all, out| out.add(&[], sum(all, |of| of.connections_open))),
    process("ringkeeper_clients_input_bytes", Gauge, "",
        "Bytes received from clients and not served yet.",
        |all, out| out.add(&[], sum(all, |of| of.input_bytes))),
    process("ringkeeper_clients_output_bytes", Gauge, "",
        "Bytes of replies that have not left yet.",
        |all, out| out.add(&[], sum(all, |of| of.output_bytes))),
    pool("ringkeeper_pool_clients", Gauge, "Clients connected.", |of| of.stats.client_connections),
    pool("ringkeeper_pool_clients_accepted_total", Counter, "Clients let in.",
        |of| of.stats.clients_accepted),
    special("ringkeeper_pool_clients_closed_total", Counter, "pool, how",
        "Clients whose connection ended: eof, they ended it; error, any other way.",
        Source::PoolClosed),
    pool("ringkeeper_pool_received_bytes_total", Counter, "Bytes that clients sent.",
        |of| of.stats.client_received_bytes),
    pool("ringkeeper_pool_sent_bytes_total", Counter, "Bytes of replies on their way to clients.",
        |of| of.stats.client_sent_bytes),
    pool("ringkeeper_pool_local_replies_total", Counter,
        "Requests about the connection or the proxy, which the proxy answered itself.",
        |of| of.stats.local_replies),
    pool("ringkeeper_pool_fragments_total", Counter,
        "Parts that requests over several servers were split into.", |of| of.stats.fragments),
    pool("ringkeeper_pool_switches_total", Counter,
        "Times a shard got another master.", |of| of.stats.switches),
    pool("ringkeeper_pool_holds_total", Counter,
        "Times that requests for a shard had to wait for its master.", |of| of.stats.holds),
    pool("ringkeeper_pool_requests_held_total", Counter,
        "Requests that waited for a master and were then sent.", |of| of.stats.requests_held),
    pool("ringkeeper_pool_requests_replayed_total", Counter,
        "Requests that were sent again after a master was lost.",
        |of| of.stats.requests_replayed),
    pool("ringkeeper_pool_requests_unknown_total", Counter,
        "Requests whose outcome is unknown because a master was lost or replicas were late.",
        |of| of.stats.requests_unknown),
    special("ringkeeper_pool_errors_total", Counter, "pool, kind",
        "Requests that got an error of the proxy, by what went wrong.", Source::PoolErrors),
    special("ringkeeper_pool_limit_rejections_total", Counter, "pool, limit",
        "Clients not let in or cut off, by the limit that they ran into.", Source::PoolLimits),
    pool("ringkeeper_pool_ejections_total", Counter, "Times a server was taken out of the ring.",
        |of| of.stats.server_ejects),
    pool("ringkeeper_pool_servers", Gauge, "Servers configured.", |of| of.servers.len() as u64),
    pool("ringkeeper_pool_servers_in_ring", Gauge, "Servers that requests go to.",
        |of| of.servers.iter().filter(|server| server.is_in_ring).count() as u64),
    pool("ringkeeper_pool_ring_epoch", Gauge, "Rises with every change of the ring.",
        |of| of.epoch),
    pool("ringkeeper_pool_draining", Gauge, "1 if the pool takes no clients, else 0.",
        |of| u64::from(of.is_draining)),
    server("ringkeeper_server_up", Gauge,
        "0 if the last attempt to reach the server failed, else 1.",
        |of| u64::from(!of.is_failing)),
    server("ringkeeper_server_in_ring", Gauge, "1 if requests go to the server, else 0.",
        |of| u64::from(of.is_in_ring)),
    special("ringkeeper_server_ejected_timestamp_seconds", Gauge, "pool, server",
        "When the server was last taken out of the ring, seconds since 1970; 0 if it is in.",
        Source::ServerEjectedAt),
    server("ringkeeper_server_connections", Gauge, "Connections established.",
        |of| of.stats.server_connections),
    special("ringkeeper_server_connections_closed_total", Counter, "pool, server, how",
        "Connections that ended: eof, the server ended it; error, it failed.",
        Source::ServerClosed),
    server("ringkeeper_server_requests_total", Counter, "Requests queued for the server.",
        |of| of.stats.requests),
    server("ringkeeper_server_request_bytes_total", Counter,
        "Bytes of requests queued for the server.", |of| of.stats.request_bytes),
    server("ringkeeper_server_replies_total", Counter, "Replies received.",
        |of| of.stats.responses),
    server("ringkeeper_server_reply_bytes_total", Counter, "Bytes of replies received.",
        |of| of.stats.response_bytes),
    server("ringkeeper_server_error_replies_total", Counter, "Replies that were errors.",
        |of| of.stats.error_replies),
    server("ringkeeper_server_timeouts_total", Counter, "Requests without a reply in time.",
        |of| of.stats.server_timedout),
    special("ringkeeper_server_queue_requests", Gauge, "pool, server, state",
        "Requests under way: unsent, still to be written; unanswered, written.",
        Source::ServerQueue(|of| [of.queues.in_queue, of.queues.out_queue])),
    special("ringkeeper_server_queue_bytes", Gauge, "pool, server, state",
        "Bytes of requests under way: unsent, still to be written; unanswered, written.",
        Source::ServerQueue(|of| [of.queues.in_queue_bytes, of.queues.out_queue_bytes])),
    special("ringkeeper_request_duration_seconds", Kind::Histogram, "pool, server, class",
        "From the queue for the server to the end of the reply, or to the time-out.",
        Source::Durations),
    process("ringkeeper_shard_epoch", Gauge, "shard, address",
        "Configuration epoch that routing follows, of the master at this address.", |all, out| {
            for (shard, news) in &all.watched.shards {
                out.add(&[("shard", shard), ("address", &news.address.to_string())], news.epoch);
            }
        }),
    process("ringkeeper_shard_condition", Gauge, "shard, condition",
        "1 for the condition that the shard's master is in, 0 for the others.", |all, out| {
            use ShardCondition::{Fenced, Moving, Serving, Suspected};
            for (shard, news) in &all.watched.shards {
                for each in [Serving, Suspected, Moving, Fenced] {
                    let labels = [("shard", &**shard), ("condition", condition(each))];
                    out.add(&labels, u64::from(news.condition == each));
                }
            }
        }),
    process("ringkeeper_shard_last_switch_timestamp_seconds", Gauge, "shard",
        "When the shard's master last moved, seconds since 1970.", |all, out| {
            for shard in all.watched.shards.keys() {
                if let Some(at) = all.watched.chronicle.last_switch(shard) {
                    out.add_time(&[("shard", shard)], Duration::from_micros(at));
                }
            }
        }),
    process("redis_sentinel_masters", Gauge, "", "Masters that are watched.",
        |all, out| of_watch(all, out, |of| of.masters.len() as u64)),
    process("redis_sentinel_tilt", Gauge, "",
        "1 if nothing is decided because the process was stopped a moment ago, else 0.",
        |all, out| of_watch(all, out, |of| u64::from(of.is_in_tilt))),
    process("redis_sentinel_running_scripts", Gauge, "", "Scripts that run.",
        |all, out| of_watch(all, out, |of| of.scripts_running)),
    process("redis_sentinel_scripts_queue_length", Gauge, "", "Scripts that run or wait.",
        |all, out| of_watch(all, out, |of| of.scripts_queued)),
    process("redis_sentinel_simulate_failure_flags", Gauge, "",
        "Always 0: failures are simulated by tests only.", |all, out| of_watch(all, out, |_| 0)),
    process("redis_sentinel_master_status", Gauge, "master_name, master_address, master_status",
        "Always 1; the status is a label: ok, sdown or odown.", |all, out| {
            for of in all.masters() {
                out.add(&[("master_name", &*of.name), ("master_address", &*of.address),
                    ("master_status", of.status)], 1);
            }
        }),
    master("redis_sentinel_master_slaves", "Replicas of the master.",
        |of| of.replicas.len() as u64),
    master("redis_sentinel_master_ok_slaves", "Replicas that are not seen down.",
        |of| of.replicas.iter().filter(|one| one.is_up).count() as u64),
    master("redis_sentinel_master_sentinels", "Sentinels that watch the master, this one included.",
        |of| of.peers.len() as u64 + 1),
    master("redis_sentinel_master_ok_sentinels",
        "Sentinels that are not seen down, this one included.",
        |of| of.peers.iter().filter(|one| one.is_up).count() as u64 + 1),
    process("redis_sentinel_master_ckquorum_status", Gauge, "master_name, message",
        "1 if enough Sentinels can be reached to replace the master, else 0.", |all, out| {
            for of in all.masters() {
                let labels = [("master_name", &*of.name), ("message", &*of.quorum_text)];
                out.add(&labels, u64::from(of.has_quorum));
            }
        }),
    master("redis_sentinel_master_setting_ckquorum", "Sentinels that must agree.", |of| of.quorum),
    master("redis_sentinel_master_setting_down_after_milliseconds",
        "Silence after which the master counts as down.", |of| millis(of.down_after)),
    master("redis_sentinel_master_setting_failover_timeout", "Milliseconds that bound a fail-over.",
        |of| millis(of.failover_timeout)),
    master("redis_sentinel_master_setting_parallel_syncs",
        "Replicas that may follow a new master at the same time.", |of| of.parallel_syncs),
    master("redis_sentinel_master_config_epoch", "The election that gave the master its address.",
        |of| of.config_epoch),
    process("redis_sentinel_master_last_ok_ping_reply_seconds", Gauge, "master_name, master_address",
        "How long ago the master last answered acceptably.", |all, out| {
            for of in all.masters() {
                if let Some(ago) = of.answered_ago {
                    let labels = [("master_name", &*of.name), ("master_address", &*of.address)];
                    out.add_time(&labels, ago);
                }
            }
        }),
];
