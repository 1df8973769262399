//! The listening sockets of the process, and what changes of them with another configuration.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use ringkeeper_core::config::nutcracker::{Config, ListenAddress, Pool};
use ringkeeper_core::id::{ListenerId, PoolId};
use ringkeeper_core::node::ControlRole;
use ringkeeper_core::proxy::ListenerRole;
use socket2::Socket;

use crate::host::listen::{self, Address, OpenError, Request};
use crate::host::runtime::Listener;
use crate::host::store;
#[cfg(target_os = "linux")]
use crate::host::sys;

/// Sockets that are taken from a service manager; one per pool is the most that makes sense.
#[cfg(target_os = "linux")]
const GIVEN_MAX: i32 = 1024;

/// Whom a socket serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// The pool of this name.
    Pool(String),
    /// What does not change with the configuration.
    Fixed(ControlRole),
}

/// One listening socket.
#[derive(Debug)]
struct Open {
    id: ListenerId,
    serves: Serves,
    /// As it was asked for; what tells whether the next configuration wants the same.
    request: Request,
    /// A second handle on the socket.
    socket: Socket,
}

/// All listening sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: Vec<Open>,
    /// Opened before this process; not in use yet.
    inherited: Vec<Inherited>,
}

/// A listening socket that this process has not opened.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Where it listens.
    pub(crate) place: String,
    /// The name under which the service manager had it.
    pub(crate) name: Option<String>,
    /// The socket.
    pub(crate) socket: Socket,
}

/// A listener that the workers are to take up.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// The listener.
    pub(crate) listener: Listener,
    /// Whom it serves.
    pub(crate) serves: Serves,
}

/// What is to change, opened already; dropped, it changes nothing.
#[derive(Debug)]
pub(crate) struct Change {
    sockets: Sockets,
    /// New listeners.
    pub(crate) fresh: Vec<Fresh>,
    /// Listeners that nobody wants any more.
    pub(crate) closed: Vec<ListenerId>,
    /// What each listener serves, by its number.
    pub(crate) roles: Vec<ListenerRole>,
}

/// A virtual address at which a pool listens itself, because it is the only server there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Direct {
    /// Address and port.
    pub(crate) at: SocketAddr,
    /// The pool's name.
    pub(crate) pool: String,
}

/// What a pool asks for.
pub(crate) fn request(pool: &Pool) -> Request {
    Request {
        purpose: format!("pool '{}'", pool.name),
        address: address(pool),
        backlog: i32::try_from(pool.backlog).unwrap_or(i32::MAX),
        reuseport: pool.reuseport,
    }
}

/// What a pool asks for in all: its own place, and virtual addresses where it serves directly.
fn requests(pool: &Pool, direct: &[Direct]) -> Vec<Request> {
    let own = request(pool);
    let more = direct.iter().filter(|one| one.pool == pool.name);
    let more = more.map(|one| Request { address: Address::Virtual(one.at), ..own.clone() });
    let more: Vec<Request> = more.collect();
    std::iter::once(own).chain(more).collect()
}

/// Returns where a pool listens, in the host's terms.
fn address(pool: &Pool) -> Address {
    match &pool.listen.address {
        ListenAddress::Tcp(at) => Address::Tcp { host: at.host.clone(), port: at.port },
        ListenAddress::Unix { path, mode } => Address::Unix { path: path.into(), mode: *mode },
    }
}

/// Returns the listening sockets that the service manager opened for this process, or has kept
/// for it.
///
/// Source: sd_listen_fds(3).
#[cfg(target_os = "linux")]
pub(crate) fn given() -> Vec<Inherited> {
    const FIRST: i32 = 3;
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let is_ours = u32::try_from(number("LISTEN_PID").unwrap_or(0)) == Ok(std::process::id());
    let count = if is_ours { number("LISTEN_FDS").unwrap_or(0) } else { 0 };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = Vec::new();
    for descriptor in FIRST..FIRST.saturating_add(count.clamp(0, GIVEN_MAX)) {
        let name = names.next().filter(|name| !name.is_empty()).map(str::to_owned);
        let Some(socket) = sys::inherited(descriptor).map(Socket::from) else { continue };
        match listen::endpoint(&socket) {
            Ok(place) if socket.set_nonblocking(true).is_ok() => {
                given.push(Inherited { place: place.to_string(), name, socket });
            }
            Ok(_) | Err(_) => {
                tracing::warn!(descriptor, "what the service manager gave is no listening socket");
            }
        }
    }
    given
}

/// Other systems have no such service manager.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn given() -> Vec<Inherited> {
    Vec::new()
}

impl Sockets {
    /// Begins with what was opened before.
    pub(crate) const fn inheriting(inherited: Vec<Inherited>) -> Self {
        Self { open: Vec::new(), inherited }
    }

    /// Takes sockets that are open elsewhere in this process, for whoever wants their places next.
    pub(crate) fn lend(&mut self, sockets: Vec<Inherited>) {
        self.inherited.extend(sockets);
    }

    /// Returns further handles on what listens on virtual addresses other than these.
    pub(crate) fn at_other_addresses(&self, direct: &[Direct]) -> Vec<Inherited> {
        let is_virtual = |open: &&Open| match open.request.address {
            Address::Virtual(at) => direct.iter().all(|one| one.at != at),
            Address::Tcp { .. } | Address::Unix { .. } => false,
        };
        let copy = |open: &Open| {
            let (place, name) = (open.request.address.to_string(), None);
            open.socket.try_clone().ok().map(|socket| Inherited { place, name, socket })
        };
        self.open.iter().filter(is_virtual).filter_map(copy).collect()
    }

    /// Returns what was opened before and nobody has taken.
    #[cfg(target_os = "linux")]
    pub(crate) fn inherited(&self) -> &[Inherited] {
        &self.inherited
    }

    /// Gives up what was opened before.
    pub(crate) fn take_inherited(&mut self) -> Vec<Inherited> {
        std::mem::take(&mut self.inherited)
    }

    /// Opens a socket, or takes the predecessor's at the same place.
    fn obtain(&self, request: &Request) -> anyhow::Result<Socket> {
        let place = request.address.to_string();
        // A host name is told by the name under which it was kept.
        let kept_as = store::name_of(&place);
        let is_there =
            |known: &&Inherited| known.place == place || known.name.as_ref() == Some(&kept_as);
        let Some(known) = self.inherited.iter().find(is_there) else {
            return Ok(listen::open(request)?);
        };
        let socket = known.socket.try_clone().context("no descriptor for a listener")?;
        socket.listen(request.backlog).context("changing a listener's backlog")?;
        Ok(socket)
    }

    /// Returns every socket with the place where it listens.
    pub(crate) fn places(&self) -> impl Iterator<Item = (String, &Socket)> {
        self.open.iter().map(|open| (open.request.address.to_string(), &open.socket))
    }

    /// Returns the number of every listener.
    pub(crate) fn ids(&self) -> Vec<ListenerId> {
        self.open.iter().map(|open| open.id).collect()
    }

    /// Opens one that stays whatever the configuration says.
    ///
    /// # Errors
    ///
    /// It can't be opened.
    pub(crate) fn open_fixed(
        &mut self,
        request: Request,
        role: ControlRole,
    ) -> anyhow::Result<Fresh> {
        let socket = self.obtain(&request)?;
        Ok(self.add(request, socket, false, Serves::Fixed(role))?)
    }

    fn add(
        &mut self,
        request: Request,
        socket: Socket,
        tcp_keepalive: bool,
        serves: Serves,
    ) -> Result<Fresh, OpenError> {
        let handle = match socket.try_clone() {
            Ok(handle) => handle,
            Err(error) => return Err(OpenError::descriptors(&request, error)),
        };
        let id = self.free_id();
        self.open.push(Open { id, serves: serves.clone(), request, socket: handle });
        Ok(Fresh { listener: Listener { id, socket, tcp_keepalive }, serves })
    }

    fn free_id(&self) -> ListenerId {
        let is_free = |id: &ListenerId| self.open.iter().all(|open| open.id != *id);
        (0..u16::MAX).map(ListenerId).find(is_free).unwrap_or(ListenerId(u16::MAX))
    }

    /// Prepares what a configuration wants; opens what is new.
    ///
    /// # Errors
    ///
    /// What can't be opened; nothing has changed then.
    pub(crate) fn prepare(
        &self,
        config: &Config,
        direct: &[Direct],
        is_wanted: impl Fn(&Pool) -> bool,
    ) -> anyhow::Result<Change> {
        let mut after = Self::default();
        let mut fresh = Vec::new();
        let mut reused = Vec::new();
        // All that is open first: a new one's number must differ from theirs.
        for open in &self.open {
            after.open.push(Open {
                id: open.id,
                serves: open.serves.clone(),
                request: open.request.clone(),
                socket: open.socket.try_clone().context("no descriptor for a listener")?,
            });
        }
        let wanted = config.pools.iter().filter(|pool| is_wanted(pool));
        let each = |pool| requests(pool, direct).into_iter().map(move |request| (pool, request));
        for (pool, request) in wanted.flat_map(each) {
            let known = after.open.iter_mut().find(|open| {
                open.request.address == request.address && matches!(open.serves, Serves::Pool(_))
            });
            if let Some(open) = known {
                // As `listen` the first time: it only sets the length of the queue.
                open.socket.listen(request.backlog).context("changing a listener's backlog")?;
                set_keepalive(&open.socket, pool.tcpkeepalive).context("changing a listener")?;
                open.serves = Serves::Pool(pool.name.clone());
                open.request = request;
                reused.push(open.id);
                continue;
            }
            let socket = self.obtain(&request)?;
            set_keepalive(&socket, pool.tcpkeepalive).context("setting up a listener")?;
            let serves = Serves::Pool(pool.name.clone());
            fresh.push(after.add(request, socket, pool.tcpkeepalive, serves)?);
        }
        let is_closed = |open: &Open| {
            matches!(open.serves, Serves::Pool(_))
                && !reused.contains(&open.id)
                && fresh.iter().all(|fresh| fresh.listener.id != open.id)
        };
        let closed: Vec<ListenerId> =
            after.open.iter().filter(|open| is_closed(open)).map(|open| open.id).collect();
        let roles = after.roles(config);
        after.open.retain(|open| !closed.contains(&open.id));
        Ok(Change { sockets: after, fresh, closed, roles })
    }

    /// Goes on with what was prepared; returns the new listeners.
    pub(crate) fn commit(&mut self, change: Change) -> Vec<Fresh> {
        self.open = change.sockets.open;
        change.fresh
    }

    /// Returns the listeners of a pool.
    pub(crate) fn of_pool<'a>(&'a self, name: &'a str) -> impl Iterator<Item = ListenerId> + 'a {
        self.open
            .iter()
            .filter(move |open| matches!(&open.serves, Serves::Pool(pool) if pool == name))
            .map(|open| open.id)
    }

    /// Says which listeners do not change with the configuration, and what they are for.
    pub(crate) fn fixed(&self) -> BTreeMap<ListenerId, ControlRole> {
        let fixed = |open: &Open| match open.serves {
            Serves::Fixed(role) => Some((open.id, role)),
            Serves::Pool(_) => None,
        };
        self.open.iter().filter_map(fixed).collect()
    }

    /// Says what each listener serves, by its number. One that is about to close still serves its
    /// pool if the configuration has it: clients may be on their way in.
    pub(crate) fn roles(&self, config: &Config) -> Vec<ListenerRole> {
        let count = self.open.iter().map(|open| usize::from(open.id.0) + 1).max().unwrap_or(0);
        let mut roles = vec![ListenerRole::Nobody; count];
        for open in &self.open {
            let role = match &open.serves {
                // Another worker's.
                Serves::Fixed(_) => ListenerRole::Nobody,
                Serves::Pool(name) => {
                    let found = config.pools.iter().position(|pool| pool.name == *name);
                    let id = found.and_then(|at| u16::try_from(at).ok()).map(PoolId);
                    id.map_or(ListenerRole::Nobody, ListenerRole::Pool)
                }
            };
            if let Some(place) = roles.get_mut(usize::from(open.id.0)) {
                *place = role;
            }
        }
        roles
    }
}

/// Linux hands the option down to accepted sockets; a unix socket has none.
fn set_keepalive(socket: &Socket, tcp_keepalive: bool) -> io::Result<()> {
    if socket.local_addr()?.is_unix() { Ok(()) } else { socket.set_keepalive(tcp_keepalive) }
}

#[cfg(test)]
mod tests {
    use ringkeeper_core::config::nutcracker;

    use super::*;

    fn config(pools: &[(&str, &str)]) -> Config {
        let text: String = pools
            .iter()
            .map(|(name, listen)| {
                format!(
                    "{name}:\n  listen: {listen}\n  redis: true\n  servers:\n   - 127.0.0.1:1:1\n"
                )
            })
            .collect();
        nutcracker::parse("test.yml", &text).config.unwrap()
    }

    fn free_path(name: &str) -> String {
        let path =
            std::env::temp_dir().join(format!("ringkeeper-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path.display().to_string()
    }

    #[test]
    fn sockets_at_the_same_place_stay_and_others_come_and_go() {
        let (a, b) = (free_path("a"), free_path("b"));
        let mut sockets = Sockets::default();
        let change = sockets.prepare(&config(&[("one", &a)]), &[], |_| true).unwrap();
        assert_eq!((change.fresh.len(), change.closed.len()), (1, 0));
        assert_eq!(change.roles, [ListenerRole::Pool(PoolId(0))]);
        sockets.commit(change);

        // The same place under another name, which sorts behind the new pool's.
        let next = config(&[("renamed", &a), ("two", &b)]);
        let change = sockets.prepare(&next, &[], |_| true).unwrap();
        assert_eq!(change.fresh.len(), 1);
        assert_eq!(change.fresh[0].listener.id, ListenerId(1));
        assert!(change.closed.is_empty());
        let roles = [ListenerRole::Pool(PoolId(1)), ListenerRole::Pool(PoolId(0))];
        assert_eq!(change.roles, roles);
        sockets.commit(change);

        let change = sockets.prepare(&next, &[], |pool| pool.name == "two").unwrap();
        assert_eq!(change.closed, [ListenerId(0)]);
        assert_eq!(change.roles, roles, "who is on the way in still gets to the pool");
        sockets.commit(change);
        assert_eq!(sockets.of_pool("renamed").count(), 0);
        for path in [a, b] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_can_not_be_opened_changes_nothing() {
        let a = free_path("c");
        let mut sockets = Sockets::default();
        let change = sockets.prepare(&config(&[("one", &a)]), &[], |_| true).unwrap();
        sockets.commit(change);
        let bad = config(&[("two", &a), ("three", "/nowhere/at/all")]);
        assert!(sockets.prepare(&bad, &[], |_| true).is_err());
        assert_eq!(sockets.of_pool("one").count(), 1);
        std::fs::remove_file(a).unwrap();
    }
}
