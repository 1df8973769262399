//! Turns the worker's events into log lines: transitions at info, oddities at warn.

pub(crate) mod balance;
pub(crate) mod routers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringkeeper_core::id::{PoolId, ServerId};
use ringkeeper_core::io::{
    Endpoint, Event, Failure, HoldCause, HoldTally, Limit, Loudness, ShardCondition,
};
use ringkeeper_core::proxy::{Plan, PoolPlan};

/// Events that clients or broken servers cause leave at most one line in this time, so that
/// nobody fills the disk from outside.
const QUIET: Duration = Duration::from_secs(1);

/// Writes the lines of one worker.
pub(crate) struct EventLog {
    plan: Arc<Plan>,
    refused: Throttle,
    over_limit: Throttle,
    protocol: Throttle,
    greeting: Throttle,
    silent: Throttle,
}

impl EventLog {
    /// Takes the plan for the names of pools and servers.
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            refused: Throttle::default(),
            over_limit: Throttle::default(),
            protocol: Throttle::default(),
            greeting: Throttle::default(),
            silent: Throttle::default(),
        }
    }

    /// Logs one event.
    pub(crate) fn log(&mut self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::ServerDown { pool, server, failure } => {
                let (pool, server) = self.names(*pool, *server);
                tracing::warn!(pool, server, "server is down: {}", cause(*failure));
            }
            Event::ServerUp { pool, server } => {
                let (pool, server) = self.names(*pool, *server);
                tracing::info!(pool, server, "server is up again");
            }
            Event::ServerSilent { pool, server } => {
                let Some(held) = self.silent.pass(now) else { return };
                let (pool, server) = self.names(*pool, *server);
                tracing::warn!(pool, server, held, "no reply in time, connection replaced");
            }
            Event::Ejected { pool, server, failures } => {
                let (pool, server) = self.names(*pool, *server);
                tracing::warn!(pool, server, failures, "server is ejected: others get its keys");
            }
            Event::Returned { pool, server } => {
                let (pool, server) = self.names(*pool, *server);
                tracing::info!(pool, server, "server has returned: it gets its keys again");
            }
            Event::GreetingRefused { pool, server, message } => {
                let Some(held) = self.greeting.pass(now) else { return };
                let (pool, server) = self.names(*pool, *server);
                tracing::warn!(
                    pool,
                    server,
                    held,
                    "server refuses redis_auth, redis_db or PING: {message}"
                );
            }
            Event::ServerProtocolError { pool, server } => {
                let Some(held) = self.protocol.pass(now) else { return };
                let (pool, server) = self.names(*pool, *server);
                tracing::warn!(pool, server, held, "server sent what is no reply to anything");
            }
            Event::Switched { pool, server, epoch, address } => {
                let (pool, server) = self.names(*pool, *server);
                let address = address.to_string();
                tracing::info!(pool, server, epoch, address, "the shard has another master");
            }
            Event::HoldBegan { pool, server, why } => {
                let (pool, server) = self.names(*pool, *server);
                tracing::warn!(pool, server, "requests for the shard wait: {}", hold(*why));
            }
            Event::HoldEnded { pool, server, tally } => {
                let (pool, server) = self.names(*pool, *server);
                let HoldTally { time, held, replayed, unknown, refused } = *tally;
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(
                    pool,
                    server,
                    ms,
                    held,
                    replayed,
                    unknown,
                    refused,
                    "requests for the shard wait no more"
                );
            }
            Event::ClientRefused { pool } => {
                let Some(held) = self.refused.pass(now) else { return };
                let pool = self.pool_name(*pool);
                tracing::warn!(
                    pool,
                    held,
                    "client refused: client_connections or the limit of open files is reached"
                );
            }
            Event::ClientOverLimit { pool, limit } => {
                let Some(held) = self.over_limit.pass(now) else { return };
                let pool = self.pool_name(*pool);
                tracing::warn!(pool, held, "client cut off: {}", excess(*limit));
            }
            Event::Reloaded(plan) => {
                if let Some(plan) = plan.open::<Plan>() {
                    self.plan = plan;
                }
            }
            Event::Drained => tracing::debug!("all clients are gone"),
            Event::Router { .. } | Event::Check { .. } | Event::ChannelFailed { .. } => {
                routers::log(event);
            }
            Event::TlsFailed { peer, is_server, reason } => tls_failed(peer, *is_server, reason),
            Event::Balance { service, news } => balance::log(service, news),
            Event::Exit { code } => tracing::info!(code, "the process was asked to end"),
            Event::Sentinel { loudness, name, message } => say(*loudness, name, message),
        }
    }

    fn pool(&self, id: PoolId) -> Option<&PoolPlan> {
        self.plan.pools.get(usize::from(id.0))
    }

    fn pool_name(&self, id: PoolId) -> &str {
        self.pool(id).map_or("?", |pool| &pool.name)
    }

    fn names(&self, pool: PoolId, server: ServerId) -> (&str, &str) {
        let Some(pool) = self.pool(pool) else { return ("?", "?") };
        let server = pool.servers.get(usize::from(server.0));
        (&pool.name, server.map_or("?", |server| &server.name))
    }
}

/// Writes what a Sentinel tells as loud as it is.
pub(crate) fn say(loudness: Loudness, name: &str, message: &str) {
    let gap = if name.is_empty() { "" } else { " " };
    match loudness {
        Loudness::Verbose => tracing::debug!("{name}{gap}{message}"),
        Loudness::Notice => tracing::info!("{name}{gap}{message}"),
        Loudness::Warning => tracing::warn!("{name}{gap}{message}"),
    }
}

/// Writes that a connection could not be encrypted.
pub(crate) fn tls_failed(peer: &Endpoint, is_server: bool, reason: &str) {
    let (verb, role) = if is_server { ("to", "server") } else { ("from", "client") };
    tracing::warn!("TLS failed on a connection {verb} {role} {peer}: {reason}");
}

fn hold(why: HoldCause) -> &'static str {
    match why {
        HoldCause::Told(ShardCondition::Suspected) => "its master may be dead",
        HoldCause::Told(ShardCondition::Moving) => "its master is being replaced",
        HoldCause::Told(ShardCondition::Fenced) => "this host is cut off from the Sentinels",
        HoldCause::Told(ShardCondition::Serving) | HoldCause::Unknown => {
            "the Sentinels have not named its master"
        }
        HoldCause::Lost(failure) => cause(failure),
        HoldCause::ReadOnly => "its master says that it is a replica",
    }
}

fn cause(failure: Failure) -> &'static str {
    match failure {
        Failure::Refused => "it refuses connections",
        Failure::TimedOut => "it does not answer in time",
        Failure::Reset => "it reset the connection",
        Failure::ServerClosed => "it closed the connection",
        Failure::Protocol => "it sent what is no reply",
        Failure::Unresolved => "its host name has no address",
        Failure::Unreachable => "there is no route to it",
        Failure::Greeting => "it refuses redis_auth, redis_db or PING",
        Failure::OutOfResources => "this host lacks descriptors, ports or memory to reach it",
        Failure::NoMaster | Failure::Fenced | Failure::Replaced | Failure::TooFewCopies => {
            failure.message()
        }
    }
}

fn excess(limit: Limit) -> &'static str {
    match limit {
        Limit::ClientOutput => "it left more replies unread than client_output_bytes_max",
        Limit::ClientsInput => "unfinished requests fill the memory set aside; it held most",
        Limit::ClientsOutput => "unread replies fill the memory set aside; it held most",
    }
}

/// Lets one line through and counts those that follow too soon.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    held: u64,
}

impl Throttle {
    /// Returns how many lines were held back since the last one, `None` to hold this one too.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            self.held = self.held.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_follow_too_soon_are_counted_and_not_written() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), None);
        assert_eq!(throttle.pass(start + QUIET / 2), None);
        assert_eq!(throttle.pass(start + QUIET), Some(2));
        assert_eq!(throttle.pass(start + QUIET * 3), Some(0));
    }
}
