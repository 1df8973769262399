//! What is broken here: six Redis servers and three nodes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::network::{ADMIN_PORT, Host, Network, REDIS_PORT, SENTINEL_PORT};
use super::recipe::{NODES, Peer, Recipe, SERVERS, SHARDS};
use super::{processes, resp};
use crate::host::runtime::Choice;

/// Hash tags that are tried until each shard has one.
const TAGS_MAX: u32 = 64;

/// The files of what clients talk to: ours, and twemproxy's.
const PROXY_FILES: [&str; 2] = ["ringkeeper.yml", "nutcracker.yml"];

/// The figure that tells how willing a node is to have the address.
const PRIORITY: &str = "ringkeeper_vrrp_priority{";

/// All processes and where they keep their files.
pub(super) struct Deployment {
    pub(super) network: Network,
    /// Where files are, from the root of the file system.
    folder: PathBuf,
    /// The same place, as short as it was given: names of sockets must not be long.
    short: PathBuf,
    program: PathBuf,
    redis: PathBuf,
    pub(super) recipe: Recipe,
    children: Vec<(Host, Child)>,
    /// What a reload changes.
    pub(super) timeout_ms: u32,
}

/// What one server says of its part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) is_master: bool,
    /// Replicas that follow it and are in step; of a replica whether itself is.
    pub(super) in_step: usize,
    /// Whom a replica follows.
    pub(super) follows: String,
}

impl Part {
    /// Tells whether it has the data of the master at `address`, which it may be itself.
    fn has_data(&self, is_master: bool, address: &str) -> bool {
        match is_master {
            true => self.is_master,
            false => !self.is_master && self.in_step == 1 && self.follows == address,
        }
    }
}

impl Deployment {
    /// Prepares everything; nothing runs yet.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or no Redis server is installed.
    pub(super) fn new(network: Network, short: &Path, recipe: &Recipe) -> io::Result<Self> {
        let folder = short.canonicalize()?;
        let redis = folder.join("redis-server");
        let found = find_redis().ok_or_else(|| {
            io::Error::other("redis-server is missing: install it, or set REDIS_SERVER to its path")
        })?;
        // Whatever its name is there, as `redis-server` it is the server.
        symlink(found, &redis)?;
        let deployment = Self {
            network,
            folder,
            short: short.to_owned(),
            program: std::env::current_exe()?,
            redis,
            recipe: recipe.clone(),
            children: Vec::new(),
            timeout_ms: 4000,
        };
        for host in NODES.iter().chain(SERVERS.as_flattened()) {
            fs::create_dir_all(deployment.place(*host))?;
        }
        for node in NODES {
            deployment.configure(node)?;
        }
        Ok(deployment)
    }

    pub(super) fn place(&self, host: Host) -> PathBuf {
        self.folder.join(host.name())
    }

    /// Returns where a node takes commands.
    pub(super) fn control(&self, node: Host) -> PathBuf {
        let control = self.short.join(node.name()).join("control.sock");
        std::path::absolute(&control).unwrap_or(control)
    }

    /// Returns the log of a host, which may be looked at while it is written.
    pub(super) fn log(&self, host: Host) -> PathBuf {
        self.place(host).join("log")
    }

    /// Returns the masters with which everything starts.
    pub(super) fn first_master(&self, shard: usize) -> Option<SocketAddr> {
        Some(self.network.socket(*SERVERS.get(shard)?.first()?, REDIS_PORT))
    }

    /// Starts a host's programs.
    ///
    /// # Errors
    ///
    /// One of them cannot be started.
    pub(super) fn start(&mut self, host: Host) -> io::Result<()> {
        match host {
            Host::Node(_) => self.start_node(host),
            Host::Server(_) => self.start_server(host),
        }
    }

    fn start_node(&mut self, node: Host) -> io::Result<()> {
        let place = self.place(node);
        let log = self.log(node);
        self.start_proxy(node)?;
        if self.recipe.has(node, Peer::Sentinel) {
            let mut command = self.network.command(node, &self.redis);
            command.arg(place.join("sentinel.conf")).arg("--sentinel");
            self.children.push((node, processes::start(command, &log)?));
        }
        if self.network.shared().is_some() && self.recipe.has(node, Peer::Keepalived) {
            let mut command = self.network.command(node, Path::new("keepalived"));
            command.args(["-n", "-l", "-D", "-P", "-f"]).arg(place.join("keepalived.conf"));
            command.arg("-p").arg(place.join("pid")).arg("-r").arg(place.join("vrrp.pid"));
            self.children.push((node, processes::start(command, &log)?));
        }
        Ok(())
    }

    /// Starts what clients of a node talk to.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start_proxy(&mut self, node: Host) -> io::Result<()> {
        let place = self.place(node);
        let mut command;
        if self.recipe.is_glued {
            command = self.network.command(node, Path::new("nutcracker"));
            command.arg("-c").arg(place.join(PROXY_FILES[1]));
            command.arg("-o").arg(place.join("nutcracker.log"));
        } else {
            let runtime = match self.recipe.runtime {
                Choice::Auto => "auto",
                Choice::Uring => "uring",
                Choice::Tokio => "tokio",
            };
            command = self.network.command(node, &self.program);
            command.args(["run", "--runtime", runtime, "-c"]).arg(place.join(PROXY_FILES[0]));
        }
        let child = processes::start(command, &self.log(node))?;
        if self.recipe.is_glued {
            // For the script that starts another; it writes none itself unless it is a daemon.
            fs::write(place.join("nutcracker.pid"), child.id().to_string())?;
        }
        self.children.push((node, child));
        Ok(())
    }

    fn start_server(&mut self, server: Host) -> io::Result<()> {
        let address = self.network.address(server).to_string();
        let port = REDIS_PORT.to_string();
        let mut command = self.network.command(server, &self.redis);
        command.args(["--port", &port, "--bind", &address, "--protected-mode", "no"]);
        command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        command.args(["--replica-announce-ip", &address, "--repl-timeout", "10"]);
        command.args(["--maxmemory", "256mb", "--dir"]).arg(self.place(server));
        if let Some(master) = self.followed(server)
            && master != server
        {
            command.args(["--replicaof", &self.network.address(master).to_string(), &port]);
        }
        let child = processes::start(command, &self.log(server))?;
        self.children.push((server, child));
        Ok(())
    }

    /// Returns whom a server is told to follow when it starts: the master with which everything begins.
    fn followed(&self, server: Host) -> Option<Host> {
        let shard = SERVERS.iter().position(|group| group.contains(&server))?;
        // Genuine Sentinels wait eight seconds before they tell a former master whom to follow, and
        // nobody measures that.
        let now = if self.recipe.is_glued { self.master(shard) } else { None };
        now.or_else(|| SERVERS.get(shard)?.first().copied())
    }

    /// Returns what all arguments of a host's programs have in common, and those of no other's.
    fn trace(&self, host: Host) -> String {
        format!("{}/", self.place(host).display())
    }

    /// Returns a host's processes: those that were started, and those that replaced them.
    fn processes(&mut self, host: Host) -> Vec<Pid> {
        self.children.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        // A server shows another name in lists than it was started with.
        let of_host = self.children.iter().filter(|(whose, _)| *whose == host);
        let mut all: Vec<Pid> = of_host.map(|(_, child)| Pid::from_child(child)).collect();
        if matches!(host, Host::Node(_)) {
            all.extend(processes::find(&self.trace(host)));
            all.sort_by_key(|pid| pid.as_raw_nonzero());
            all.dedup();
        }
        all
    }

    /// Returns the processes that clients of a node talk to.
    pub(super) fn proxies(&self, node: Host) -> Vec<Pid> {
        let files = PROXY_FILES.map(|name| self.place(node).join(name).display().to_string());
        files.iter().flat_map(|file| processes::find(file)).collect()
    }

    /// Returns the time that all processes of some hosts have had of a processor.
    pub(super) fn spent(&mut self, hosts: &[Host]) -> Duration {
        let mut all: Vec<Pid> = hosts.iter().flat_map(|host| self.processes(*host)).collect();
        all.sort_by_key(|pid| pid.as_raw_nonzero());
        all.iter().map(|pid| processes::spent(*pid)).sum()
    }

    /// Sends a signal to all of a host's processes.
    pub(super) fn signal(&mut self, host: Host, signal: Signal) {
        for pid in self.processes(host) {
            // It may have ended this instant.
            let _ = kill_process(pid, signal);
        }
        if signal == Signal::KILL && self.recipe.has(host, Peer::Keepalived) {
            // Nobody takes it away for the genuine program, as the loss of a host would.
            self.network.remove_shared(host);
        }
    }

    /// Tells whether a process of a host runs.
    pub(super) fn is_running(&mut self, host: Host) -> bool {
        !self.processes(host).is_empty()
    }

    /// Has a node do something, such as `reload`; waits for its answer.
    ///
    /// # Errors
    ///
    /// It does not do it; the text says why.
    pub(super) fn tell(&self, node: Host, verb: &str) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args([verb, "--control"]).arg(self.control(node));
        super::network::run(command).map_err(|error| error.to_string())
    }

    /// Writes another configuration for every node.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub(super) fn change_configuration(&mut self) -> io::Result<()> {
        let before = format!("timeout: {} ms", self.timeout_ms);
        self.timeout_ms += 1;
        let after = format!("timeout: {} ms", self.timeout_ms);
        for node in NODES {
            let path = self.place(node).join("ringkeeper.yml");
            let text = fs::read_to_string(&path)?;
            fs::write(path, text.replace(&before, &after))?;
        }
        Ok(())
    }

    /// Asks a node's Sentinel.
    pub(super) fn ask_sentinel(&self, node: Host, words: &[&str]) -> io::Result<resp::Reply> {
        resp::ask(self.network.socket(node, SENTINEL_PORT), words)
    }

    /// Returns which server a node's Sentinel says is the master of a shard.
    pub(super) fn master_by(&self, node: Host, shard: usize) -> Option<Host> {
        let name = SHARDS.get(shard)?;
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name];
        let reply = self.ask_sentinel(node, &words).ok()?;
        let address = reply.items().first()?.text().to_owned();
        let is_it = |host: &&Host| self.network.address(**host).to_string() == address;
        SERVERS.get(shard)?.iter().find(is_it).copied()
    }

    /// Returns the master of a shard on which every Sentinel that answers agrees.
    pub(super) fn master(&self, shard: usize) -> Option<Host> {
        let mut said = NODES.iter().filter_map(|node| self.master_by(*node, shard));
        let first = said.next()?;
        said.all(|other| other == first).then_some(first)
    }

    /// Asks a server for its part.
    pub(super) fn part(&self, server: Host) -> Option<Part> {
        let at = self.network.socket(server, REDIS_PORT);
        let reply = resp::ask(at, &["INFO", "replication"]).ok()?;
        let lines: Vec<&str> = reply.text().lines().collect();
        let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
        let is_master = field("role:") == Some("master");
        let in_step = match is_master {
            true => lines.iter().filter(|line| line.contains("state=online")).count(),
            false => usize::from(field("master_link_status:") == Some("up")),
        };
        let follows = field("master_host:").unwrap_or_default().to_owned();
        Some(Part { is_master, in_step, follows })
    }

    /// Finds two hash tags, one for each shard, by writing through the proxy and looking where it
    /// went.
    ///
    /// # Errors
    ///
    /// Nobody takes writes, or all go to one shard.
    pub(super) fn find_tags(&self, entries: &[SocketAddr]) -> io::Result<[String; 2]> {
        let gone = || io::Error::other("there is nowhere to write");
        let entry = *entries.first().ok_or_else(gone)?;
        let first = self.first_master(0).ok_or_else(gone)?;
        let mut tags = [None, None];
        for number in 0..TAGS_MAX {
            // Hashes of short names that end differently are neighbours.
            let tag = format!("{number}-shard");
            let key = format!("lab:{{{tag}}}");
            if let resp::Reply::Error(text) = resp::ask(entry, &["SET", &key, "1"])? {
                return Err(io::Error::other(text));
            }
            let is_second = resp::ask(first, &["EXISTS", &key])?.text() == "0";
            resp::ask(entry, &["DEL", &key])?;
            if let Some(place) = tags.get_mut(usize::from(is_second)) {
                *place = Some(tag);
            }
            if let [Some(one), Some(two)] = &tags {
                return Ok([one.clone(), two.clone()]);
            }
        }
        Err(io::Error::other("all keys go to one shard"))
    }

    /// Tells why not every node serves, or not exactly one has the shared address.
    ///
    /// # Errors
    ///
    /// It is so; the text says what.
    pub(super) fn judge_nodes(&self) -> Result<(), String> {
        for node in NODES {
            for port in [REDIS_PORT, SENTINEL_PORT] {
                let reply = resp::ask(self.network.socket(node, port), &["PING"]);
                if !reply.is_ok_and(|reply| reply.text() == "PONG") {
                    return Err(format!("{} does not answer at {port}", node.name()));
                }
            }
        }
        match self.network.shared().is_none() || self.network.holder(&NODES).is_some() {
            true => Ok(()),
            false => Err("nobody has the address, or more than one".to_owned()),
        }
    }

    /// Tells why not every node that has virtual routers of ours is as willing as it may be to have
    /// the address: at first none is, until it has been well for a second.
    ///
    /// # Errors
    ///
    /// It is so; the text says who is not.
    pub(super) fn judge_priorities(&self) -> Result<(), String> {
        for node in NODES {
            if self.network.shared().is_none() || self.recipe.has(node, Peer::Keepalived) {
                continue;
            }
            let (wanted, found) = (Self::priority(node), self.priority_at(node)?);
            if found != wanted {
                return Err(format!("{} has the priority {found}, not {wanted}", node.name()));
            }
        }
        Ok(())
    }

    /// Returns how willing a node is to have the shared address.
    ///
    /// # Errors
    ///
    /// It does not say it.
    fn priority_at(&self, node: Host) -> Result<usize, String> {
        if self.recipe.has(node, Peer::Keepalived) {
            return Ok(Self::priority(node));
        }
        let page = resp::page(self.network.socket(node, ADMIN_PORT), "/metrics");
        let page = page.map_err(|error| format!("{}: {error}", node.name()))?;
        let line = page.lines().find(|line| line.starts_with(PRIORITY));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        number.ok_or_else(|| format!("{} has no priority", node.name()))
    }

    /// Returns how long the best of the other nodes waits after a goodbye, if there is an address to
    /// have. Source: RFC 9568 section 6.1, the skew time.
    pub(super) fn skew_without(&self, holder: Host) -> Option<Duration> {
        self.network.shared()?;
        let others = NODES.iter().filter(|node| **node != holder);
        let best = others.filter_map(|node| self.priority_at(*node).ok()).max()?;
        let steps = u32::try_from(256_usize.checked_sub(best)?).ok()?;
        Some(self.recipe.advert * steps / 256)
    }

    /// Tells why a node's Sentinel does not see a shard whole.
    fn judge_view(&self, node: Host, name: &str) -> Result<(), String> {
        let reply = self.ask_sentinel(node, &["SENTINEL", "MASTER", name]);
        let reply = reply.map_err(|error| format!("{}: {error}", node.name()))?;
        let words: Vec<&str> = reply.items().iter().map(resp::Reply::text).collect();
        let wanted = [("flags", "master"), ("num-slaves", "2"), ("num-other-sentinels", "2")];
        for (field, value) in wanted {
            let found = words.chunks_exact(2).find_map(|pair| match pair {
                [key, value] if *key == field => Some(*value),
                _ => None,
            });
            if found != Some(value) {
                let found = found.unwrap_or("nothing");
                return Err(format!("{} sees {field} {found} of {name}", node.name()));
            }
        }
        Ok(())
    }

    /// Tells why not every server is where it begins.
    ///
    /// # Errors
    ///
    /// One of them is not; the text says which.
    pub(super) fn judge_servers(&self) -> Result<(), String> {
        SERVERS.iter().enumerate().try_for_each(|(shard, group)| match group.first() {
            Some(&first) => self.judge_followers(shard, first),
            None => Ok(()),
        })
    }

    /// Tells whether a server has what the master of its shard has, or is it.
    pub(super) fn has_data(&self, server: Host, master: Host) -> bool {
        let address = self.network.address(master).to_string();
        self.part(server).is_some_and(|part| part.has_data(server == master, &address))
    }

    /// Tells why not every other server of a shard follows one, in step.
    fn judge_followers(&self, shard: usize, master: Host) -> Result<(), String> {
        let address = self.network.address(master).to_string();
        for &server in SERVERS.get(shard).into_iter().flatten() {
            let part = self.part(server).ok_or_else(|| format!("{} is silent", server.name()))?;
            let is_right = match server == master {
                true => part.is_master && part.in_step == 2,
                false => !part.is_master && part.in_step == 1 && part.follows == address,
            };
            if !is_right {
                return Err(format!("{} is not in its place: {part:?}", server.name()));
            }
        }
        Ok(())
    }

    /// Returns why a shard is not whole: one master, on which all agree, and two replicas in step.
    ///
    /// # Errors
    ///
    /// It is not whole; the text says why.
    pub(super) fn judge_shard(&self, shard: usize) -> Result<(), String> {
        let name = SHARDS.get(shard).copied().unwrap_or_default();
        let master = NODES.map(|node| self.master_by(node, shard));
        let Some(first) = master.first().copied().flatten() else {
            return Err(format!("a Sentinel does not say where the master of {name} is"));
        };
        if master.iter().any(|one| *one != Some(first)) {
            return Err(format!("Sentinels do not agree where the master of {name} is"));
        }
        self.judge_followers(shard, first)?;
        NODES.iter().try_for_each(|node| self.judge_view(*node, name))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for node in NODES {
            self.signal(node, Signal::KILL);
        }
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Finds a Redis server. Debian's redis-check-rdb is the same program under another name, and its
/// package brings no service.
fn find_redis() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("REDIS_SERVER") {
        return PathBuf::from(given).canonicalize().ok();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    let places: Vec<PathBuf> = std::env::split_paths(&path).chain(more).collect();
    ["redis-server", "redis-check-rdb"].iter().find_map(|name| {
        places.iter().map(|place| place.join(name)).find(|at| at.is_file())?.canonicalize().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_with_the_master_and_with_replicas_in_step() {
        let part = |is_master, in_step, follows: &str| Part {
            is_master,
            in_step,
            follows: follows.to_owned(),
        };
        assert!(part(true, 0, "").has_data(true, "10.78.0.11"));
        assert!(part(false, 1, "10.78.0.11").has_data(false, "10.78.0.11"));
        let without = [
            // A former master, a server that was started anew, one that follows somebody else.
            part(true, 1, ""),
            part(false, 0, "10.78.0.11"),
            part(false, 1, "10.78.0.12"),
        ];
        for part in without {
            assert!(!part.has_data(false, "10.78.0.11"), "{part:?}");
        }
        assert!(!part(false, 1, "10.78.0.12").has_data(true, "10.78.0.11"));
    }
}
