//! The figures as JSON, and what they say of the health of the whole.

use super::metrics::Gathered;
use super::watch;
use crate::stats::{
    Class, ClientRow, ErrorKind, FoundKeys, Histogram, LimitKind, PoolFigures, RealServerFigures,
    RouterFigures, SeenRow, ServerFigures, ServiceFigures,
};
use crate::wire::json::Json;

/// Writes everything about workers, pools and servers.
pub fn status(all: &Gathered<'_>, now_unix_seconds: u64) -> String {
    let mut json = Json::default();
    let facts = all.facts;
    json.object(|json| {
        json.key("version").text(&facts.version);
        json.key("host").text(&facts.host_name);
        json.key("process_id").number(u64::from(facts.process_id));
        json.key("started_unix_seconds").number(facts.started_unix_seconds);
        let uptime = now_unix_seconds.saturating_sub(facts.started_unix_seconds);
        json.key("uptime_seconds").number(uptime);
        json.key("io_backend").object(|json| {
            json.key("name").text(&facts.backend);
            json.key("reason").text(&facts.backend_reason);
        });
        json.key("last_reload").object(|json| {
            json.key("is_good").boolean(all.reload.is_good);
            json.key("unix_seconds").number(all.reload.unix_seconds);
        });
        let problem = problem(all);
        json.key("is_ready").boolean(problem.is_none());
        if let Some(problem) = problem {
            json.key("problem").text(&problem);
        }
        json.key("workers").array(|json| {
            for worker in 0..all.workers_due {
                let figures = all.workers.iter().find(|figures| figures.worker.0 == worker);
                json.object(|json| {
                    json.key("worker").number(u64::from(worker));
                    json.key("answers").boolean(figures.is_some());
                    let Some(figures) = figures else { return };
                    let clients = figures.pools.iter().map(|pool| pool.stats.client_connections);
                    json.key("clients").number(clients.sum());
                    json.key("connections").number(figures.connections_open);
                    json.key("connections_made").number(figures.connections_made);
                    json.key("input_bytes").number(figures.input_bytes);
                    json.key("output_bytes").number(figures.output_bytes);
                    json.key("is_draining").boolean(figures.is_draining);
                });
            }
        });
        json.key("pools").array(|json| all.pools.iter().for_each(|of| pool(json, of)));
        json.key("routers").array(|json| all.routers.iter().for_each(|of| router(json, of)));
        json.key("virtual_servers").array(|json| {
            all.balance.iter().for_each(|of| virtual_server(json, of));
        });
        watch::write(json, all);
    });
    finish(json)
}

fn router(json: &mut Json, of: &RouterFigures) {
    json.object(|json| {
        json.key("name").text(&of.name);
        json.key("interface").text(&of.interface);
        json.key("virtual_router_id").number(u64::from(of.vrid));
        json.key("state").text(of.state.name());
        json.key("priority").number(u64::from(of.priority));
        json.key("addresses").array(|json| {
            for address in of.addresses.iter().chain(&of.excluded) {
                json.text(&address.to_string());
            }
        });
        json.key("adverts_sent").number(of.sent);
        json.key("adverts_received").number(of.received);
        json.key("adverts_refused").number(of.refused.iter().map(|(_, count)| count).sum());
    });
}

fn virtual_server(json: &mut Json, of: &ServiceFigures) {
    json.object(|json| {
        json.key("name").text(&of.name);
        json.key("is_quorate").boolean(of.is_quorate);
        json.key("is_sorry").boolean(of.is_sorry);
        json.key("clients_refused").number(of.refused);
        json.key("servers").array(|json| of.servers.iter().for_each(|of| real_server(json, of)));
    });
}

fn real_server(json: &mut Json, of: &RealServerFigures) {
    json.object(|json| {
        json.key("address").text(&of.address.to_string());
        json.key("is_for_bad_times").boolean(of.is_for_bad_times);
        json.key("is_up").boolean(of.is_up);
        json.key("weight").number(u64::from(of.weight));
        json.key("connections").number(u64::from(of.connections));
        json.key("connections_made").number(of.total);
        json.key("received_bytes").number(of.received);
        json.key("sent_bytes").number(of.sent);
        json.key("checks").number(of.checks);
        json.key("checks_failed").number(of.checks_failed);
    });
}

fn pool(json: &mut Json, of: &PoolFigures) {
    let stats = &of.stats;
    json.object(|json| {
        json.key("name").text(&of.name);
        json.key("ring_epoch").number(of.epoch);
        json.key("is_draining").boolean(of.is_draining);
        json.key("clients").number(stats.client_connections);
        json.key("clients_accepted").number(stats.clients_accepted);
        json.key("received_bytes").number(stats.client_received_bytes);
        json.key("sent_bytes").number(stats.client_sent_bytes);
        json.key("local_replies").number(stats.local_replies);
        json.key("fragments").number(stats.fragments);
        json.key("ejections").number(stats.server_ejects);
        json.key("errors").object(|json| {
            for (kind, count) in ErrorKind::ALL.iter().zip(stats.errors.all()) {
                json.key(kind.name()).number(*count);
            }
        });
        json.key("limit_rejections").object(|json| {
            for (kind, count) in LimitKind::ALL.iter().zip(stats.limits.all()) {
                json.key(kind.name()).number(*count);
            }
        });
        json.key("servers").array(|json| of.servers.iter().for_each(|of| server(json, of)));
        json.key("commands").object(|json| {
            for (name, times) in &of.commands {
                json.key(name);
                durations(json, times);
            }
        });
    });
}

fn server(json: &mut Json, of: &ServerFigures) {
    let stats = &of.stats;
    json.object(|json| {
        json.key("name").text(&of.name);
        json.key("is_up").boolean(!of.is_failing);
        json.key("is_in_ring").boolean(of.is_in_ring);
        json.key("ring_share_millionths").number(u64::from(of.ring_share));
        json.key("connections").number(stats.server_connections);
        json.key("requests").number(stats.requests);
        json.key("request_bytes").number(stats.request_bytes);
        json.key("replies").number(stats.responses);
        json.key("reply_bytes").number(stats.response_bytes);
        json.key("error_replies").number(stats.error_replies);
        json.key("timeouts").number(stats.server_timedout);
        json.key("unsent_requests").number(of.queues.in_queue);
        json.key("unanswered_requests").number(of.queues.out_queue);
        json.key("durations").object(|json| {
            let all = stats.durations.iter().flat_map(|all| all.iter());
            for (class, times) in Class::ALL.iter().zip(all) {
                if times.count() > 0 {
                    json.key(class.name());
                    durations(json, times);
                }
            }
        });
    });
}

/// Writes how long requests took, milliseconds; quantiles are at most an eighth too long.
fn durations(json: &mut Json, times: &Histogram) {
    json.object(|json| {
        json.key("count").number(times.count());
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)] {
            json.key(&format!("{name}_ms")).millis(times.quantile(share));
        }
        json.key("max_ms").millis(times.max());
    });
}

/// Writes requests that were seen.
pub fn seen(rows: &[SeenRow]) -> String {
    let mut json = Json::default();
    json.array(|json| rows.iter().for_each(|row| seen_row(json, row)));
    finish(json)
}

/// Writes one of them as a line.
pub fn seen_line(row: &SeenRow) -> String {
    let mut json = Json::default();
    seen_row(&mut json, row);
    finish(json)
}

fn seen_row(json: &mut Json, row: &SeenRow) {
    json.object(|json| {
        json.key("unix_micros").number(row.unix_micros);
        json.key("pool").text(&row.pool);
        json.key("server").text(&row.server);
        json.key("command").text(row.command);
        json.key("key").text(&row.key.to_string());
        json.key("duration_ms").millis(row.duration);
        json.key("request_bytes").number(u64::from(row.request_bytes));
        json.key("reply_bytes").number(row.reply_bytes);
        json.key("client").text(&row.client);
        let name = row.client_name.as_deref().unwrap_or_default();
        json.key("client_name").text(&name.escape_ascii().to_string());
        json.key("worker").number(u64::from(row.worker.0));
    });
}

/// Writes what watching keys has found.
pub fn keys(found: Option<&FoundKeys>) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.key("is_watching").boolean(found.is_some());
        let Some(found) = found else { return };
        json.key("requests").number(found.requests);
        json.key("hot").array(|json| {
            for hot in &found.hot {
                json.object(|json| {
                    json.key("pool").text(&hot.pool);
                    json.key("key").text(&hot.key.to_string());
                    json.key("requests").number(hot.count);
                });
            }
        });
        json.key("big").array(|json| {
            for big in &found.big {
                json.object(|json| {
                    json.key("pool").text(&big.pool);
                    json.key("key").text(&big.key.to_string());
                    json.key("bytes").number(big.bytes);
                });
            }
        });
    });
    finish(json)
}

/// Writes clients.
pub fn clients(rows: &[ClientRow]) -> String {
    let mut json = Json::default();
    json.array(|json| {
        for row in rows {
            json.object(|json| {
                json.key("id").number(row.id);
                json.key("address").text(&row.address);
                json.key("pool").text(&row.pool);
                let name = row.name.as_deref().unwrap_or_default();
                json.key("name").text(&name.escape_ascii().to_string());
                json.key("age_seconds").number(row.age);
                json.key("idle_seconds").number(row.idle);
                json.key("input_bytes").number(row.input_bytes);
                json.key("owed_replies").number(row.owed);
                json.key("output_bytes").number(row.output_bytes);
                json.key("last_command").text(row.command);
                json.key("protocol").number(u64::from(row.protocol));
            });
        }
    });
    finish(json)
}

/// Writes how many things a change has changed.
pub fn done(count: u64) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.key("changed").number(count);
    });
    finish(json)
}

fn finish(json: Json) -> String {
    let mut text = json.finish();
    text.push('\n');
    text
}

/// Returns which worker does not answer.
pub fn silent_worker(all: &Gathered<'_>) -> Option<String> {
    let is_silent = |worker: &u16| !all.workers.iter().any(|figures| figures.worker.0 == *worker);
    (0..all.workers_due).find(is_silent).map(|worker| format!("worker {worker} does not answer\n"))
}

/// Returns why clients should go elsewhere, if they should.
pub fn problem(all: &Gathered<'_>) -> Option<String> {
    if let Some(silent) = silent_worker(all) {
        return Some(silent);
    }
    if all.workers.iter().any(|worker| worker.is_draining) {
        return Some("draining: no new clients are taken\n".to_owned());
    }
    let is_useless = |pool: &&PoolFigures| {
        !pool.is_draining
            && !pool.servers.iter().any(|server| server.is_in_ring && !server.is_failing)
    };
    let pool = all.pools.iter().find(is_useless)?;
    Some(format!("pool {} has no server that can be reached\n", pool.name))
}
