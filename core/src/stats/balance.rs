//! Figures of the virtual servers, and how Prometheus is told them.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// The figures of one virtual server that is relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFigures {
    /// Its name: address and port, or the name of a group.
    pub name: String,
    /// Whether enough servers are up.
    pub is_quorate: bool,
    /// Whether the server for bad times serves.
    pub is_sorry: bool,
    /// Clients that found nobody.
    pub refused: u64,
    /// Its servers, the one for bad times last.
    pub servers: Vec<RealServerFigures>,
}

/// The figures of one real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServerFigures {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it is the one for bad times.
    pub is_for_bad_times: bool,
    /// Whether it is up.
    pub is_up: bool,
    /// Its weight at the moment.
    pub weight: u32,
    /// Its connections, those that are being made among them.
    pub connections: u32,
    /// Its connections since the start.
    pub total: u64,
    /// Bytes that its clients sent.
    pub received: u64,
    /// Bytes that it sent to them.
    pub sent: u64,
    /// Attempts of its checkers.
    pub checks: u64,
    /// Those that failed.
    pub checks_failed: u64,
}

/// What a metric shows of a virtual server.
type OfService = fn(&ServiceFigures) -> u64;

/// What one shows of a real server.
type OfServer = fn(&RealServerFigures) -> u64;

const SERVICES: [(&str, &str, &str, OfService); 3] = [
    ("quorate", "gauge", "Whether enough servers are up.", |one| u64::from(one.is_quorate)),
    ("sorry", "gauge", "Whether the sorry server serves.", |one| u64::from(one.is_sorry)),
    ("clients_refused_total", "counter", "Clients that found no server.", |one| one.refused),
];

const SERVERS: [(&str, &str, &str, OfServer); 8] = [
    ("server_up", "gauge", "Whether the server is up.", |one| u64::from(one.is_up)),
    ("server_weight", "gauge", "Weight, after what checkers say.", |one| u64::from(one.weight)),
    ("connections", "gauge", "Connections to the server.", |one| u64::from(one.connections)),
    ("connections_total", "counter", "Connections that were given to the server.", |one| one.total),
    ("received_bytes_total", "counter", "Bytes that clients sent.", |one| one.received),
    ("sent_bytes_total", "counter", "Bytes that the server sent to clients.", |one| one.sent),
    ("checks_total", "counter", "Checks of the server.", |one| one.checks),
    ("checks_failed_total", "counter", "Checks that failed.", |one| one.checks_failed),
];

/// A label's value: the format's own escapes.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Appends the figures in Prometheus' format.
pub fn render(figures: &[ServiceFigures], out: &mut String) {
    for (name, kind, help, value) in SERVICES {
        let name = family(out, name, kind, help);
        for service in figures {
            let (virtual_server, value) = (label(&service.name), value(service));
            let _ = writeln!(out, "{name}{{virtual_server=\"{virtual_server}\"}} {value}");
        }
    }
    for (name, kind, help, value) in SERVERS {
        let name = family(out, name, kind, help);
        for service in figures {
            let virtual_server = label(&service.name);
            for server in &service.servers {
                let role = if server.is_for_bad_times { "sorry" } else { "real" };
                let (address, value) = (server.address, value(server));
                let _ = writeln!(
                    out,
                    "{name}{{virtual_server=\"{virtual_server}\",server=\"{address}\",\
                     role=\"{role}\"}} {value}"
                );
            }
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) -> String {
    let name = format!("ringkeeper_balance_{name}");
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_line_with_both_servers_named() {
        let server = RealServerFigures {
            address: "10.0.0.1:1".parse().unwrap(),
            is_for_bad_times: false,
            is_up: true,
            weight: 3,
            connections: 2,
            total: 7,
            received: 10,
            sent: 20,
            checks: 9,
            checks_failed: 4,
        };
        let service = ServiceFigures {
            name: "10.0.0.9:1".to_owned(),
            is_quorate: true,
            is_sorry: false,
            refused: 5,
            servers: vec![server],
        };
        let mut out = String::new();
        render(&[service], &mut out);
        let labels = "virtual_server=\"10.0.0.9:1\",server=\"10.0.0.1:1\",role=\"real\"";
        for (name, value) in [
            ("server_up", 1),
            ("server_weight", 3),
            ("connections", 2),
            ("connections_total", 7),
            ("received_bytes_total", 10),
            ("sent_bytes_total", 20),
            ("checks_total", 9),
            ("checks_failed_total", 4),
        ] {
            let line = format!("ringkeeper_balance_{name}{{{labels}}} {value}");
            assert!(out.lines().any(|known| known == line), "{line}\n{out}");
        }
        for line in [
            "ringkeeper_balance_quorate{virtual_server=\"10.0.0.9:1\"} 1",
            "ringkeeper_balance_clients_refused_total{virtual_server=\"10.0.0.9:1\"} 5",
        ] {
            assert!(out.lines().any(|known| known == line), "{line}\n{out}");
        }
    }
}
