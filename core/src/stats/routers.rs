//! Figures of the virtual routers, and how Prometheus is told them.

use std::fmt::Write as _;
use std::net::IpAddr;

/// What a virtual router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterState {
    /// Not started.
    Init,
    /// Waiting for the Active router to fall silent.
    Backup,
    /// The one that has the addresses.
    Active,
    /// Unable to take part.
    Fault,
}

impl RouterState {
    /// Returns keepalived's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Backup => "BACKUP",
            Self::Active => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

/// The figures of one virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterFigures {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Its number.
    pub vrid: u8,
    /// Its state.
    pub state: RouterState,
    /// Its priority at the moment.
    pub priority: u8,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses that only come and go with it.
    pub excluded: Vec<IpAddr>,
    /// Adverts that counted, goodbyes among them.
    pub received: u64,
    /// Goodbyes of others.
    pub goodbyes_received: u64,
    /// Adverts that were sent, goodbyes among them.
    pub sent: u64,
    /// Goodbyes that were sent.
    pub goodbyes_sent: u64,
    /// Gratuitous ARP packets and neighbour adverts.
    pub announced: u64,
    /// How often it became Active.
    pub became_active: u64,
    /// How often it ceased to be.
    pub left_active: u64,
    /// Adverts that did not count, by kind.
    pub refused: Vec<(&'static str, u64)>,
}

/// Kinds of refusals that keepalived's exporter has a name for.
const EXPORTED: [(&str, &[&str]); 6] = [
    ("packet_length_errors", &["length"]),
    ("advertisements_interval_errors", &["interval"]),
    ("ip_ttl_errors", &["ttl", "peer-ttl"]),
    ("invalid_type_received", &["type"]),
    ("address_list_errors", &["addresses", "addresses-differ"]),
    ("authentication_failure", &["password"]),
];

/// Further ones: which types of authentication there are, and which is ours.
const EXPORTED_AUTH: [(&str, &[&str]); 2] =
    [("authentication_invalid", &["auth-header"]), ("authentication_mismatch", &["auth-type"])];

/// Appends the figures in Prometheus' format: under our names, and under those of
/// keepalived-exporter, so that its dashboards show them.
pub fn render(figures: &[RouterFigures], out: &mut String) {
    render_own(figures, out);
    render_exported(figures, out);
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value: the format's own escapes.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What a counter shows of a router.
type Count = fn(&RouterFigures) -> u64;

fn render_own(figures: &[RouterFigures], out: &mut String) {
    family(out, "ringkeeper_vrrp_state", "gauge", "1 for the state that the router is in.");
    let states = [
        ("init", RouterState::Init),
        ("backup", RouterState::Backup),
        ("active", RouterState::Active),
        ("fault", RouterState::Fault),
    ];
    for one in figures {
        for (word, state) in states {
            let (router, is_it) = (label(&one.name), u8::from(one.state == state));
            let _ = writeln!(
                out,
                "ringkeeper_vrrp_state{{router=\"{router}\",state=\"{word}\"}} {is_it}"
            );
        }
    }
    family(out, "ringkeeper_vrrp_priority", "gauge", "Effective priority.");
    for one in figures {
        let (router, priority) = (label(&one.name), one.priority);
        let _ = writeln!(out, "ringkeeper_vrrp_priority{{router=\"{router}\"}} {priority}");
    }
    let counters: [(&str, &str, Count); 7] = [
        ("adverts_received", "Adverts that counted.", |one| one.received),
        ("goodbyes_received", "Adverts of priority 0 that counted.", |one| one.goodbyes_received),
        ("adverts_sent", "Adverts sent.", |one| one.sent),
        ("goodbyes_sent", "Adverts of priority 0 sent.", |one| one.goodbyes_sent),
        ("announcements_sent", "Gratuitous ARP packets and neighbour adverts.", |one| {
            one.announced
        }),
        ("became_active", "Times that the router took the addresses.", |one| one.became_active),
        ("left_active", "Times that it gave them up.", |one| one.left_active),
    ];
    for (name, help, value) in counters {
        let name = format!("ringkeeper_vrrp_{name}_total");
        family(out, &name, "counter", help);
        for one in figures {
            let _ = writeln!(out, "{name}{{router=\"{}\"}} {}", label(&one.name), value(one));
        }
    }
    let name = "ringkeeper_vrrp_adverts_refused_total";
    family(out, name, "counter", "Adverts that did not count, by kind.");
    for one in figures {
        for (kind, count) in &one.refused {
            let router = label(&one.name);
            let _ = writeln!(out, "{name}{{router=\"{router}\",kind=\"{kind}\"}} {count}");
        }
    }
}

fn render_exported(figures: &[RouterFigures], out: &mut String) {
    family(out, "keepalived_up", "gauge", "As keepalived-exporter: whether the daemon runs.");
    let _ = writeln!(out, "keepalived_up 1");
    let labels = |one: &RouterFigures| {
        let (name, interface) = (label(&one.name), label(&one.interface));
        format!("iname=\"{name}\",intf=\"{interface}\",vrid=\"{}\"", one.vrid)
    };
    for (name, excluded) in
        [("keepalived_vrrp_state", false), ("keepalived_vrrp_excluded_state", true)]
    {
        let help = "As keepalived-exporter: 0 init, 1 backup, 2 master, 3 fault.";
        family(out, name, "gauge", help);
        for one in figures {
            let state = match one.state {
                RouterState::Init => 0,
                RouterState::Backup => 1,
                RouterState::Active => 2,
                RouterState::Fault => 3,
            };
            for address in if excluded { &one.excluded } else { &one.addresses } {
                let labels = labels(one);
                let _ = writeln!(out, "{name}{{{labels},ip_address=\"{address}\"}} {state}");
            }
        }
    }
    let direct: [(&str, Count); 6] = [
        ("advertisements_received", |one| one.received),
        ("advertisements_sent", |one| one.sent),
        ("become_master", |one| one.became_active),
        ("release_master", |one| one.left_active),
        ("priority_zero_received", |one| one.goodbyes_received),
        ("priority_zero_sent", |one| one.goodbyes_sent),
    ];
    for (name, value) in direct {
        let name = format!("keepalived_{name}_total");
        family(out, &name, "counter", "As keepalived-exporter.");
        for one in figures {
            let _ = writeln!(out, "{name}{{{}}} {}", labels(one), value(one));
        }
    }
    for (name, kinds) in EXPORTED.into_iter().chain(EXPORTED_AUTH) {
        let name = format!("keepalived_{name}_total");
        family(out, &name, "counter", "As keepalived-exporter.");
        for one in figures {
            let counts = one.refused.iter().filter(|(kind, _)| kinds.contains(kind));
            let sum: u64 = counts.map(|(_, count)| count).sum();
            let _ = writeln!(out, "{name}{{{}}} {sum}", labels(one));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_under_both_names() {
        let figures = RouterFigures {
            name: "VI".to_owned(),
            interface: "e0".to_owned(),
            vrid: 51,
            state: RouterState::Active,
            priority: 150,
            addresses: vec!["10.77.0.100".parse().unwrap()],
            excluded: Vec::new(),
            received: 3,
            goodbyes_received: 1,
            sent: 10,
            goodbyes_sent: 0,
            announced: 5,
            became_active: 1,
            left_active: 0,
            refused: vec![("checksum", 4), ("peer-ttl", 1), ("ttl", 2)],
        };
        let mut out = String::new();
        render(&[figures], &mut out);
        for line in [
            "ringkeeper_vrrp_state{router=\"VI\",state=\"active\"} 1",
            "ringkeeper_vrrp_adverts_refused_total{router=\"VI\",kind=\"checksum\"} 4",
            "keepalived_vrrp_state{iname=\"VI\",intf=\"e0\",vrid=\"51\",ip_address=\"10.77.0.100\"} 2",
            "keepalived_ip_ttl_errors_total{iname=\"VI\",intf=\"e0\",vrid=\"51\"} 3",
            "keepalived_priority_zero_received_total{iname=\"VI\",intf=\"e0\",vrid=\"51\"} 1",
        ] {
            assert!(out.lines().any(|known| known == line), "{line}\n{out}");
        }
    }
}
