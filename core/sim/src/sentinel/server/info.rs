//! What a server says of itself.

use std::net::{IpAddr, SocketAddr};

use ringkeeper_core::time::Instant;

use super::{Server, Use};
use crate::codec::push_number;

impl Server {
    pub(super) fn info(&self, now: Instant) -> Vec<u8> {
        let mut text = Vec::with_capacity(1024);
        text.extend_from_slice(
            b"# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:",
        );
        text.extend_from_slice(self.run_id.as_bytes());
        field("\r\ntcp_port:", self.address.port(), &mut text);
        text.extend_from_slice(b"\r\n\r\n# Replication\r\n");
        match self.replica_of {
            None => text.extend_from_slice(b"role:master"),
            Some(master) => self.info_replica(master, now, &mut text),
        }
        let replicas = || {
            self.clients.values().filter_map(|client| match &client.kind {
                Use::Replica { port, address, acknowledged } => Some((port, address, acknowledged)),
                Use::Normal | Use::PubSub => None,
            })
        };
        field("\r\nconnected_slaves:", replicas().count() as u64, &mut text);
        for (index, (port, address, acknowledged)) in replicas().enumerate() {
            field("\r\nslave", index as u64, &mut text);
            text.extend_from_slice(b":ip=");
            push_ip(address.ip(), &mut text);
            field(",port=", *port, &mut text);
            field(",state=online,offset=", *acknowledged, &mut text);
            text.extend_from_slice(b",lag=0");
        }
        text.extend_from_slice(b"\r\nmaster_failover_state:no-failover\r\nmaster_replid:");
        text.extend_from_slice(self.replid.as_bytes());
        text.extend_from_slice(b"\r\nmaster_replid2:");
        let before = self.replid2.as_ref();
        text.extend_from_slice(before.map_or(&[b'0'; 40][..], |(id, _)| id.as_bytes()));
        field("\r\nmaster_repl_offset:", self.offset, &mut text);
        match before {
            Some((_, end)) => field("\r\nsecond_repl_offset:", *end + 1, &mut text),
            None => text.extend_from_slice(b"\r\nsecond_repl_offset:-1"),
        }
        text.extend_from_slice(b"\r\n");
        text
    }

    fn info_replica(&self, master: SocketAddr, now: Instant, text: &mut Vec<u8>) {
        text.extend_from_slice(b"role:slave\r\nmaster_host:");
        push_ip(master.ip(), text);
        field("\r\nmaster_port:", master.port(), text);
        text.extend_from_slice(if self.is_in_step() {
            b"\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:0"
        } else {
            b"\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1"
        });
        field("\r\nmaster_sync_in_progress:0\r\nslave_read_repl_offset:", self.offset, text);
        field("\r\nslave_repl_offset:", self.offset, text);
        if !self.is_in_step() {
            match self.down_since {
                Some(since) => {
                    let seconds = now.since(since).as_secs();
                    field("\r\nmaster_link_down_since_seconds:", seconds, text);
                }
                None => text.extend_from_slice(b"\r\nmaster_link_down_since_seconds:-1"),
            }
        }
        field("\r\nslave_priority:", self.priority, text);
        text.extend_from_slice(b"\r\nslave_read_only:1\r\nreplica_announced:1");
    }
}

fn field(name: &str, value: impl Into<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    push_number(value.into(), out);
}

fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            let [first, rest @ ..] = ip.octets();
            push_number(first.into(), out);
            rest.into_iter().for_each(|part| field(".", part, out));
        }
        IpAddr::V6(ip) => out.extend_from_slice(ip.to_string().as_bytes()),
    }
}
