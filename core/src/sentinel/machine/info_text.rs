//! The reply to INFO.

use std::fmt::Write as _;

use super::Sentinel;
use super::ordinary::REDIS_VERSION;
use crate::sentinel::reply::{InfoMaster, InfoSection, Status};
use crate::time::Instant;

/// The sections in their order.
const SECTIONS: [&str; 5] = ["server", "clients", "stats", "cpu", "sentinel"];

impl Sentinel {
    /// Returns the sections that are asked for; all when none is.
    pub(super) fn info_text(&self, now: Instant, wanted: &[&[u8]]) -> String {
        let wanted: Vec<String> =
            wanted.iter().map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
        let all = ["all", "default", "everything"];
        let is_all = wanted.is_empty() || wanted.iter().any(|w| all.contains(&w.as_str()));
        let mut text = String::new();
        for section in SECTIONS {
            if !is_all && !wanted.iter().any(|word| word == section) {
                continue;
            }
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            match section {
                "server" => self.push_server(now, &mut text),
                "clients" => self.push_clients(&mut text),
                "stats" => self.push_stats(&mut text),
                "cpu" => text.push_str("# CPU\r\n"),
                _ => text.push_str(&self.sentinel_section(now)),
            }
        }
        text
    }

    fn push_server(&self, now: Instant, text: &mut String) {
        let process = &self.process;
        let up = now.since(self.started).as_secs();
        let micros = process
            .unix_micros_at_start
            .saturating_add(u64::try_from(now.since(Instant::START).as_micros()).unwrap_or(0));
        let version = env!("CARGO_PKG_VERSION");
        let lines = [
            ("redis_version", REDIS_VERSION.to_owned()),
            ("redis_git_sha1", "00000000".to_owned()),
            ("redis_git_dirty", "0".to_owned()),
            ("redis_build_id", "0".to_owned()),
            ("redis_mode", "sentinel".to_owned()),
            ("ringkeeper_version", version.to_owned()),
            ("os", process.os.clone()),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", process.id.to_string()),
            ("run_id", process.run_id.to_string()),
            ("tcp_port", process.port.to_string()),
            ("server_time_usec", micros.to_string()),
            ("uptime_in_seconds", up.to_string()),
            ("uptime_in_days", (up / 86_400).to_string()),
            ("executable", process.executable.clone()),
            ("config_file", process.config_file.clone()),
        ];
        text.push_str("# Server\r\n");
        for (name, value) in lines {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }

    fn push_clients(&self, text: &mut String) {
        let most = crate::limits::SENTINEL_CLIENTS_MAX;
        let count = self.clients.len();
        let _ = write!(text, "# Clients\r\nconnected_clients:{count}\r\nmaxclients:{most}\r\n");
        text.push_str("blocked_clients:0\r\n");
    }

    fn push_stats(&self, text: &mut String) {
        let (connections, commands) = (self.clients.last_id(), self.clients.commands);
        let _ = write!(text, "# Stats\r\ntotal_connections_received:{connections}\r\n");
        let _ = write!(text, "total_commands_processed:{commands}\r\n");
    }

    fn sentinel_section(&self, now: Instant) -> String {
        let masters: Vec<InfoMaster<'_>> = self
            .each_master()
            .map(|(_, master)| InfoMaster {
                name: master.name(),
                status: if master.agreement.is_down() {
                    Status::ObjectivelyDown
                } else if master.server.watch.is_down() {
                    Status::SubjectivelyDown
                } else {
                    Status::Ok
                },
                address: master.belief().address,
                replicas: master.replicas.len(),
                sentinels: master.voices.len() + 1,
            })
            .collect();
        let section = InfoSection {
            tilt_for: self.tilt.active_for(now),
            running_scripts: self.scripts.running.len(),
            queued_scripts: self.scripts.waiting.len() + self.scripts.running.len(),
            masters: &masters,
        };
        section.text()
    }
}
