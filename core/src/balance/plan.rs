//! What a balancer serves, and where it listens.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::config::keepalived::{Check, Checker, Config, Cover, RealServer, User, VirtualServer};
use crate::id::ListenerId;

/// A socket that clients of a virtual server come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its name.
    pub id: ListenerId,
    /// Where it listens; the address may come to this host later.
    pub at: SocketAddr,
}

/// What a balancer serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The virtual servers.
    pub services: Vec<VirtualServer>,
    /// Their sockets.
    pub listeners: Vec<Listening>,
    /// Who runs programs that name nobody.
    pub user: Option<User>,
    /// What encrypted checks need; without it they fail.
    pub cover: CoverPlan,
    /// The number of the next socket.
    next: u16,
}

/// What encrypted checks need.
#[derive(Clone, Debug, Default)]
pub struct CoverPlan(pub Option<Arc<ClientConfig>>);

impl PartialEq for CoverPlan {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Eq for CoverPlan {}

impl Plan {
    /// Makes a plan of what a file says. Sockets of the plan before it keep their names, and no
    /// name is used for another address.
    pub fn new(config: &Config, before: Option<&Self>) -> Self {
        Self::of(config.virtual_servers.clone(), config.global.script_user.clone(), before)
    }

    /// Makes a plan of virtual servers.
    pub fn of(services: Vec<VirtualServer>, user: Option<User>, before: Option<&Self>) -> Self {
        let mut next = before.map_or(0, |plan| plan.next);
        let known = before.map(|plan| plan.listeners.as_slice()).unwrap_or_default();
        let addresses = services.iter().flat_map(|service| &service.listen);
        let listeners = addresses.map(|&at| {
            let same = known.iter().find(|one| one.at == at);
            same.copied().unwrap_or_else(|| {
                let id = ListenerId(next);
                next = next.wrapping_add(1);
                Listening { id, at }
            })
        });
        let listeners = listeners.collect();
        let cover = before.map(|plan| plan.cover.clone()).unwrap_or_default();
        Self { services, listeners, user, cover, next }
    }

    /// Tells whether a check is encrypted.
    pub fn has_encrypted_checks(&self) -> bool {
        let servers = self.services.iter().flat_map(|service| &service.servers);
        let mut checks = servers.flat_map(|server| &server.checkers).map(|one| &one.check);
        checks.any(|check| {
            matches!(check, Check::Http { cover: Cover::Tls | Cover::TlsWithName, .. })
        })
    }

    /// Returns the virtual server that a socket belongs to, by its place, and the address.
    pub fn find(&self, id: ListenerId) -> Option<(usize, SocketAddr)> {
        let at = self.listeners.iter().find(|one| one.id == id)?.at;
        let place = self.services.iter().position(|service| service.listen.contains(&at))?;
        Some((place, at))
    }
}

/// Parts virtual servers whose servers are all this process' own listeners from the others: the
/// former need no relay, because who listens there can listen on the virtual address too.
///
/// `own` tells which listener of this process a server's address is, if any. Returned are the
/// addresses to listen on with the listener of each, and the virtual servers that are left. One
/// with another kind of server among its own, or with servers that are different listeners, is
/// balanced like any other; so is one that wants what only a relay has, see [`is_plain`].
pub fn part<L: Clone + PartialEq>(
    services: Vec<VirtualServer>,
    own: impl Fn(SocketAddr) -> Option<L>,
) -> (Vec<(SocketAddr, L)>, Vec<VirtualServer>) {
    let mut direct = Vec::new();
    let mut left = Vec::new();
    for service in services {
        let mut listeners = service.servers.iter().map(|server| own(server.address));
        let first = listeners.next().flatten();
        let is_one = listeners.all(|listener| listener == first);
        match first {
            Some(listener) if is_one && is_plain(&service) => {
                direct.extend(service.listen.iter().map(|&at| (at, listener.clone())));
            }
            Some(_) | None => left.push(service),
        }
    }
    (direct, left)
}

/// Tells whether all that a virtual server says of a server that is our own listener is true of
/// that listener anyway: it takes connections while it is there, and is not there while it does
/// not.
///
/// Somebody who serves instead, programs that are told, checks that look further than to a
/// connection, a bound on connections and the PROXY protocol need a relay.
fn is_plain(service: &VirtualServer) -> bool {
    let weight = service.servers.iter().fold(0u32, |sum, one| sum.saturating_add(one.weight));
    let is_plain = |server: &RealServer| {
        let mut checkers = server.checkers.iter();
        let looks = |one: &Checker| one.check == Check::Tcp && one.address == server.address;
        server.upper == 0 && checkers.all(looks)
    };
    !service.sends_proxy
        && service.sorry.is_none()
        && service.commands().next().is_none()
        && weight >= service.quorum
        && service.servers.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keepalived;

    fn config(text: &str) -> Config {
        keepalived::parse(text, "host").config.unwrap()
    }

    fn service(at: &str, servers: &[&str]) -> String {
        let one = |server: &&str| format!("real_server {server} {{ TCP_CHECK {{ }}\n }}\n");
        let servers: String = servers.iter().map(one).collect();
        format!("virtual_server {at} {{\n protocol TCP\n {servers} }}\n")
    }

    #[test]
    fn sockets_keep_their_names_over_a_reload() {
        let real = ["10.0.0.1 1"];
        let text = service("10.0.0.8 1", &real) + &service("10.0.0.9 1", &real);
        let first = Plan::new(&config(&text), None);
        let ids = |plan: &Plan| plan.listeners.iter().map(|one| one.id.0).collect::<Vec<_>>();
        assert_eq!(ids(&first), [0, 1]);
        let text = service("10.0.0.7 1", &real) + &service("10.0.0.9 1", &real);
        let second = Plan::new(&config(&text), Some(&first));
        assert_eq!(ids(&second), [2, 1]);
        assert_eq!(second.find(ListenerId(1)), Some((1, "10.0.0.9:1".parse().unwrap())));
        assert_eq!(second.find(ListenerId(0)), None);
    }

    #[test]
    fn what_this_process_serves_itself_is_not_relayed() {
        let text = service("10.0.0.9 6379", &["10.0.0.1 22121"])
            + &service("10.0.0.9 6380", &["10.0.0.2 22121"])
            + &service("10.0.0.9 6381", &["10.0.0.1 22121", "10.0.0.2 22121"]);
        let ours: SocketAddr = "10.0.0.1:22121".parse().unwrap();
        let own = |at: SocketAddr| (at == ours).then_some("alpha");
        let (direct, left) = part(config(&text).virtual_servers, own);
        assert_eq!(direct, [("10.0.0.9:6379".parse().unwrap(), "alpha")]);
        let names: Vec<_> = left.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["10.0.0.9:6380", "10.0.0.9:6381"]);
    }

    #[test]
    fn what_only_a_relay_can_do_is_relayed() {
        let direct = |service: &str, server: &str| {
            let text = format!(
                "virtual_server 10.0.0.9 6379 {{\n protocol TCP\n {service}\n real_server \
                 10.0.0.1 22121 {{\n {server}\n }}\n}}\n"
            );
            part(config(&text).virtual_servers, |_| Some(())).0.len()
        };
        assert_eq!(direct("persistence_timeout 50", "TCP_CHECK {\n retry 3\n }"), 1);
        assert_eq!(direct("", ""), 1);
        for service in ["sorry_server 10.0.0.7 1", "proxy_protocol v2", "quorum_down \"/bin/true\""]
        {
            assert_eq!(direct(service, ""), 0, "{service}");
        }
        for server in [
            "weight 0",
            "uthreshold 9",
            "notify_down \"/bin/true\"",
            "HTTP_GET {\n url {\n path /\n }\n }",
            "TCP_CHECK {\n connect_port 9\n }",
        ] {
            assert_eq!(direct("", server), 0, "{server}");
        }
    }
}
