//! keepalived's `keepalived.conf`, read in place: its grammar, and what it says about
//! virtual routers and virtual servers.
//!
//! Source: keepalived 2.2.7, as its users see it. What keepalived refuses to run with is an error
//! here. What it runs with after changing it, ignoring it or only complaining is a warning that
//! says so; nothing is changed silently.
//!
//! Nothing is opened here: [`assemble`] is handed what `include` asks for, and whether interfaces
//! and scripts exist and are safe is the host's to say.

mod address;
mod check;
mod checker;
mod global;
mod grammar;
mod include;
mod instance;
mod keywords;
mod lines;
mod model;
mod reader;
mod script;
mod virtual_server;

pub use checker::{
    Check, Checker, Cover, HttpVersion, Pattern, RedisCheck, RedisRole, Timing, Url,
};
pub use include::{Assembled, Matches, Source, assemble};
pub use model::{
    Announcing, ChecksumForm, Command, Config, Fifo, File, Framed, Global, Group, HealthEffect,
    HealthRule, Instance, ListCheck, Notify, Peer, Preempt, Probe, Process, Route, Scheduling,
    Script, Tracked, Tracks, User, VirtualAddress, VirtualMac,
};
pub use virtual_server::{Persistence, RealServer, Scheduler, Sorry, VirtualServer};

use super::diagnostic::{Collector, Diagnostic};

/// What a file says, as far as it can be understood.
#[derive(Debug)]
pub struct Parsed {
    /// The configuration; some exactly when no diagnostic is an error.
    pub config: Option<Config>,
    /// Every error and warning, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file. `id` is what `@id` lines are compared with: keepalived's `-i`, or the first label
/// of the host's name.
pub fn parse(text: &str, id: &str) -> Parsed {
    let mut collector = Collector::new(text);
    if text.len() > crate::limits::CONFIG_BYTES_MAX {
        let message = "the file is too large";
        collector.report(collector.error("file-too-large", &(0..0), message));
        return Parsed { config: None, diagnostics: collector.finish() };
    }
    let statements = grammar::parse(text, id, &mut collector);
    let config = instance::read(&statements, &mut collector);
    let config = (!collector.has_errors()).then_some(config);
    Parsed { config, diagnostics: collector.finish() }
}

/// Tells whether `keepalived -t` passes over what a diagnostic is about.
pub fn is_silent_in_keepalived(code: &str) -> bool {
    matches!(
        code,
        "duplicate-address"
            | "missing-mask"
            | "first-address-not-link-local"
            | "peer-is-self"
            | "text-behind-brace"
            | "include-missing"
            | "include-not-followed"
            | "keyword-without-effect"
            | "strict-mode"
            | "unicast-in-strict-mode"
            | "no-checker"
            | "server-weight-out-of-range"
            | "missing-protocol"
            | "method-without-effect"
            | "scheduler-replaced"
            | "duplicate-virtual-server"
            | "fwmark-not-served"
            | "protocol-not-served"
            | "check-replaced"
            | "check-without-effect"
            | "weight-with-nopreempt"
            | "process-arguments"
    )
}
