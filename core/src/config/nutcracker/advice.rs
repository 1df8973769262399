//! What works as told and yet surprises, whichever file a pool comes from.

use std::ops::Range;

use super::super::diagnostic::{Collector, Diagnostic, quoted};
use super::{Address, Directive, HostPort, Pool, Server};
use crate::distribution::Distribution;
use crate::routing::{RouteServer, RouteTable, server_order};

/// Largest ketama pool whose unequal weights are checked for servers without keys; the check lays
/// the whole ring out.
const RING_CHECK_SERVERS_MAX: usize = 1024;

/// How the file writes what a hint proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Form {
    /// One line a server.
    Nutcracker,
    /// `name:` and `address:`.
    Native,
}

/// A pool that was read without looking at what its settings mean together.
pub(in crate::config) struct Advice<'a> {
    /// The pool; its own servers are not looked at.
    pub(in crate::config) pool: &'a Pool,
    /// Its servers in the order of the file, and where they are.
    pub(in crate::config) servers: &'a [(Server, Range<usize>)],
    /// What hints look like.
    pub(in crate::config) form: Form,
}

impl Advice<'_> {
    /// Returns the warnings; `key` tells where a directive's word is.
    pub(in crate::config) fn warnings(
        &self,
        key: impl Fn(Directive) -> Range<usize>,
        out: &Collector<'_>,
    ) -> Vec<Diagnostic> {
        let Self { pool, servers, .. } = *self;
        let mut warnings = Vec::new();
        if pool.distribution == Distribution::Random && servers.len() > 1 {
            let message = "with \"distribution: random\" a key is read from another server than \
                           it was written to; it suits servers that all hold the same data";
            let key = key(Directive::Distribution);
            warnings.push(out.warning("random-distribution", &key, message));
        }
        if pool.redis && pool.auto_eject_hosts && servers.len() > 1 {
            let message = "an ejected server's keys move to the others and are missing there; \
                           what is written meanwhile is lost when it returns";
            let warning = out.warning("eject-moves-keys", &key(Directive::AutoEjectHosts), message);
            warnings.push(warning.hint("leave it out for servers that store data"));
        }
        if pool.redis && pool.distribution == Distribution::Ketama && servers.len() > 1 {
            warnings.extend(self.unnamed(out));
        }
        if pool.distribution == Distribution::Ketama {
            warnings.extend(self.without_keys(out));
        }
        warnings
    }

    fn unnamed(&self, out: &Collector<'_>) -> Option<Diagnostic> {
        let mut unnamed = self.servers.iter().filter(|(server, _)| !server.is_named);
        let (first, span) = unnamed.next()?;
        let count = unnamed.count() + 1;
        let message = format!(
            "{count} of {} servers of the pool have no name: their address places them on the \
             ring, and keys move when it changes",
            self.servers.len()
        );
        // The name that the server has already, so that no key moves.
        let named = match self.form {
            Form::Nutcracker => quoted(&format!("{} {}", first.literal, first.name)),
            Form::Native => {
                format!("\"name: {}\" and \"address: {}\"", first.name, first.literal)
            }
        };
        let warning = out.warning("unnamed-server", span, message);
        Some(warning.hint(format!(
            "write {named} to keep this server's keys in place whatever its address becomes"
        )))
    }

    fn without_keys(&self, out: &Collector<'_>) -> Vec<Diagnostic> {
        let mut sorted: Vec<&(Server, Range<usize>)> = self.servers.iter().collect();
        sorted.sort_by(|a, b| server_order(&a.0.name, &b.0.name));
        let Some((lead, _)) = sorted.first() else { return Vec::new() };
        let is_even = sorted.iter().all(|(server, _)| server.weight == lead.weight);
        if is_even || sorted.len() > RING_CHECK_SERVERS_MAX {
            return Vec::new();
        }
        let mut spec = self.pool.route_spec();
        spec.servers = sorted
            .iter()
            .map(|(server, _)| RouteServer { name: server.name.clone(), weight: server.weight })
            .collect();
        let table = RouteTable::build(&spec, &vec![true; sorted.len()], 0);
        sorted
            .iter()
            .zip(table.points_per_server())
            .filter(|&(_, &points)| points == 0)
            .map(|((server, span), _)| {
                let message = format!(
                    "the weight {} is so small beside the others that the server gets no keys",
                    server.weight
                );
                out.warning("server-without-keys", span, message)
            })
            .collect()
    }
}

/// Warns of a server without a host.
pub(in crate::config) fn no_host(
    address: &Address,
    span: &Range<usize>,
    out: &Collector<'_>,
) -> Option<Diagnostic> {
    let Address::Tcp(HostPort { host, .. }) = address else { return None };
    let message = "the server has no host and can never be reached";
    host.is_empty().then(|| out.warning("server-host-empty", span, message))
}
