//! `stats`: the proxy's own figures, in memcached's form.

use std::fmt::Write as _;

use super::Call;
use crate::proxy::client::Client;
use crate::proxy::request::Flow;
use crate::proxy::shared::Shared;
use crate::stats::PoolFigures;

impl Shared {
    /// Answers `stats`. What its arguments ask for belongs to one server.
    pub(super) fn answer_stats(&mut self, client: &mut Client, call: Call<'_>) -> Flow {
        if call.words.len() > 1 {
            let reply = b"CLIENT_ERROR only stats without arguments is answered by the proxy; \
                connect to a server for its own\r\n";
            self.reply(client, reply);
            return Flow::Next;
        }
        self.note_local(client);
        self.ask_memcache_stats(client)
    }

    /// Writes the figures of a pool; `connections` is how many were made so far.
    pub(crate) fn memcache_stats(&self, pool: Option<&PoolFigures>, connections: u64) -> String {
        let mut text = String::with_capacity(1024);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = write!(text, "STAT {name} {value}\r\n");
        };
        let uptime = self.now.as_nanos() / 1_000_000_000;
        line("pid", &self.plan.process_id);
        line("uptime", &uptime);
        line("time", &(self.plan.started_unix_seconds + uptime));
        line("version", &self.plan.version);
        line("total_connections", &connections);
        if let Some(pool) = pool {
            let stats = &pool.stats;
            line("curr_connections", &stats.client_connections);
            line("pool", &pool.name);
            line("pool_epoch", &pool.epoch);
            line("pool_errors", &stats.forward_error);
            line("pool_ejections", &stats.server_ejects);
            line("pool_fragments", &stats.fragments);
            line("servers", &pool.servers.len());
            for server in &pool.servers {
                let name = &server.name;
                line(&format!("server:{name}:in_ring"), &u8::from(server.is_in_ring));
                line(&format!("server:{name}:requests"), &server.stats.requests);
                line(&format!("server:{name}:replies"), &server.stats.responses);
                line(&format!("server:{name}:timeouts"), &server.stats.server_timedout);
            }
        }
        text.push_str("END\r\n");
        text
    }
}
