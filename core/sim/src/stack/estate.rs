//! Whole nodes: threads of one process that hear from each other, and the link with the address
//! that moves between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringkeeper_core::io::{Mail, Notice, Output, Recipient};
use ringkeeper_core::time::Instant;

use super::kernel::{Asked, Kernel};
use crate::sentinel::process::{Happening, NodeId};
use crate::sentinel::world::{Event, Process, State, World};

/// One host: the threads of its process and its kernel.
pub(crate) struct Host {
    /// Watches masters.
    pub control: NodeId,
    /// Has clients.
    pub worker: NodeId,
    /// Has the virtual routers.
    pub routers: NodeId,
    pub kernel: Kernel,
}

impl Host {
    pub(crate) const fn threads(&self) -> [NodeId; 3] {
        [self.routers, self.control, self.worker]
    }
}

/// All hosts, and what their link knows.
#[derive(Default)]
pub(crate) struct Estate {
    pub hosts: Vec<Host>,
    /// The address that moves.
    pub address: Option<SocketAddr>,
    /// Where each client believes it to be.
    neighbours: BTreeMap<NodeId, usize>,
    /// How long a thread may take to be woken.
    pub wakes_within: Duration,
    /// Mail keeps its order between two threads.
    mailed: BTreeMap<(NodeId, NodeId), Instant>,
}

impl Estate {
    pub(crate) fn is_virtual(&self, to: SocketAddr) -> bool {
        self.address == Some(to)
    }

    fn host_of(&self, thread: NodeId) -> Option<usize> {
        self.hosts.iter().position(|host| host.threads().contains(&thread))
    }
}

impl World {
    /// Leaves mail for a thread of the same process.
    pub(crate) fn mail(&mut self, at: Instant, from: NodeId, to: NodeId, mail: Mail) {
        // Threads are woken soon, now and then later.
        let longest = self.estate.wakes_within.as_nanos() as u64;
        let most = if self.rng.is_one_in(1, 40) { longest } else { 10_000 };
        let after = Duration::from_nanos(1_000 + self.rng.below(most));
        let last = self.estate.mailed.entry((from, to)).or_insert(at);
        let arrival = (at + after).max(*last);
        *last = arrival;
        let incarnation = self.nodes[to].incarnation;
        let happening = Happening::Mail(mail);
        self.agenda.plan(arrival, Event::Later { node: to, incarnation, happening });
    }

    /// Passes news on, as the host does between its threads.
    pub(crate) fn notify(&mut self, at: Instant, from: NodeId, to: Recipient, notice: &Notice) {
        let Some(host) = self.estate.host_of(from) else { return };
        let host = &self.estate.hosts[host];
        let to = match to {
            Recipient::Worker(_) | Recipient::Data => host.worker,
            Recipient::Control => host.control,
            Recipient::Routers => host.routers,
        };
        self.mail(at, from, to, Mail::Notice(notice.clone()));
    }

    /// Does what a thread asks of its kernel.
    pub(crate) fn ask_kernel(&mut self, at: Instant, id: NodeId, output: Output) {
        let Some(host) = self.estate.host_of(id) else { return };
        let had = self.holds(host);
        for asked in self.estate.hosts[host].kernel.take(output) {
            match asked {
                Asked::Told(happening) => self.tell_routers(at, host, happening),
                Asked::Packet(bytes) => self.flood(at, host, &bytes),
                Asked::Announced => self.announced(host),
            }
        }
        if had && !self.holds(host) {
            self.left(host);
        }
    }

    fn tell_routers(&mut self, at: Instant, host: usize, happening: Happening) {
        let node = self.estate.hosts[host].routers;
        let incarnation = self.nodes[node].incarnation;
        let after = Duration::from_nanos(1_000);
        self.agenda.plan(at + after, Event::Later { node, incarnation, happening });
    }

    /// Sends a packet to all other hosts of the link, which take it or do not.
    fn flood(&mut self, at: Instant, from: usize, bytes: &[u8]) {
        let sender = self.estate.hosts[from].routers;
        for to in 0..self.estate.hosts.len() {
            let node = self.estate.hosts[to].routers;
            let is_heard = !self.paths.is_cut(sender, node) && self.nodes[node].is_powered;
            let Some(channel) = self.estate.hosts[to].kernel.raw() else { continue };
            if to != from && is_heard {
                let delay = self.paths.draw(&mut self.rng);
                let incarnation = self.nodes[node].incarnation;
                let happening = Happening::Datagram { channel, bytes: bytes.to_vec() };
                self.agenda.plan(at + delay, Event::Later { node, incarnation, happening });
            }
        }
    }

    /// Tells whether the kernel of a host has the address.
    pub(crate) fn holds(&self, host: usize) -> bool {
        let Some(address) = self.estate.address else { return false };
        let host = &self.estate.hosts[host];
        self.nodes[host.routers].is_powered && host.kernel.has(address.ip())
    }

    /// As [`World::holds`], by the thread with the clients.
    pub(crate) fn has_virtual(&self, worker: NodeId) -> bool {
        self.estate.host_of(worker).is_some_and(|host| self.holds(host))
    }

    /// Finds the address for somebody: where it was last, or whoever answers.
    pub(crate) fn find_virtual(&mut self, from: NodeId) -> Option<NodeId> {
        let known = self.estate.neighbours.get(&from).copied().filter(|host| self.holds(*host));
        let is_near = |host: &usize| {
            let node = self.estate.hosts[*host].worker;
            self.holds(*host) && !self.paths.is_cut(from, node) && !self.paths.is_cut(node, from)
        };
        let host = known.or_else(|| (0..self.estate.hosts.len()).find(is_near))?;
        self.estate.neighbours.insert(from, host);
        Some(self.estate.hosts[host].worker)
    }

    /// A host tells all that the address is there.
    fn announced(&mut self, host: usize) {
        if !self.holds(host) {
            return;
        }
        let worker = self.estate.hosts[host].worker;
        let known = self.estate.neighbours.clone();
        for (client, before) in known {
            if before != host && !self.paths.is_cut(worker, client) {
                self.estate.neighbours.insert(client, host);
                self.strand(before, Some(client));
            }
        }
    }

    /// A host has the address no more.
    fn left(&mut self, host: usize) {
        self.strand(host, None);
    }

    /// What clients, or one of them, send to a host by the address arrives no more.
    fn strand(&mut self, host: usize, client: Option<NodeId>) {
        let links = self.nodes[self.estate.hosts[host].worker].links.clone();
        for conn in links {
            let link = &self.links[conn];
            let is_it = client.is_none_or(|client| link.ends[0].node == client);
            if link.is_virtual && is_it {
                self.net_strand(conn);
            }
        }
    }

    /// Returns the files that a thread has on its disk.
    pub(crate) fn files(&self, thread: NodeId) -> BTreeMap<PathBuf, Vec<u8>> {
        match &self.nodes[thread].process {
            Process::Thread(thread) => thread.disk.files.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// Starts the process of a host: masters are where its Sentinel had them last.
    pub(crate) fn start_host(&mut self, host: usize) {
        let [routers, control, worker] = self.estate.hosts[host].threads();
        let files = self.files(control);
        if let Process::Thread(thread) = &mut self.nodes[worker].process {
            thread.disk.files = files;
        }
        // Nothing that the one that watches says may be lost.
        for thread in [routers, worker, control] {
            self.start(thread);
        }
    }

    /// Ends the process of a host; its guardian, if it lives on, does what is left to do.
    pub(crate) fn kill_host(&mut self, host: usize, has_guardian: bool) {
        let threads = self.estate.hosts[host].threads();
        if self.nodes[threads[0]].state == State::Dead {
            return;
        }
        for thread in threads {
            self.kill(thread);
        }
        let had = self.holds(host);
        let goodbyes = self.estate.hosts[host].kernel.crashed(has_guardian);
        for bytes in goodbyes {
            self.flood(self.now, host, &bytes);
        }
        if had && !self.holds(host) {
            self.left(host);
        }
    }

    /// Takes the power of a host away.
    pub(crate) fn power_off_host(&mut self, host: usize) {
        for thread in self.estate.hosts[host].threads() {
            self.power_off(thread);
        }
        self.estate.hosts[host].kernel.crashed(false);
        self.estate.hosts[host].kernel.lost_power();
    }
}
