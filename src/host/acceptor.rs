//! One thread that accepts for several workers, so that each gets its share however few clients
//! there are: the kernel spreads connections over listeners by a hash, which gives four clients
//! on two workers two each in three of eight cases only.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringkeeper_core::id::ListenerId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, Socket};

use crate::host::alarm::Alarm;
use crate::host::pulse::Pulse;
use crate::host::routers::Line;
use crate::host::runtime::{Listener, Sender};

/// Clients of one listener that are taken before the others are looked at again.
const ACCEPTS_PER_LOOK: usize = 64;

/// How long a listener rests when the kernel has no descriptor or memory for another connection.
const REST: Duration = Duration::from_millis(100);

/// How long to wait when every worker's mailbox is full.
const MAILBOX_WAIT: Duration = Duration::from_millis(1);

/// A worker that may be given clients.
pub(crate) struct Candidate {
    /// How it is reached.
    pub(crate) sender: Sender,
    /// How it is doing.
    pub(crate) pulse: Arc<Pulse>,
}

/// A listener of a pool, and how many clients the pool may have in all.
pub(crate) struct Share {
    /// The listener.
    pub(crate) listener: Listener,
    /// The pool's name.
    pub(crate) pool: Arc<str>,
    /// Clients of all its listeners and of all workers together; `None` for no limit.
    pub(crate) clients_max: Option<u32>,
}

enum Order {
    Listen(Share),
    /// Answered when those who waited are with a worker.
    Unlisten(ListenerId, mpsc::Sender<()>),
    Limit(ListenerId, Arc<str>, Option<u32>),
    Stop,
}

/// The thread, as the main thread has it. Dropped, it ends.
pub(crate) struct Acceptor {
    orders: mpsc::Sender<Order>,
    bell: UnixStream,
    is_stopping: Arc<AtomicBool>,
    alarm: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Starts the thread. `routers` is the way to the virtual routers, which leave if it ends
    /// unasked.
    ///
    /// # Errors
    ///
    /// The system refuses a thread or two descriptors.
    pub(crate) fn start(workers: Vec<Candidate>, routers: Line) -> io::Result<Self> {
        let (bell, rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let (orders, taken) = mpsc::channel();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut desk = AcceptDesk {
            workers,
            rung,
            orders: taken,
            is_stopping: Arc::clone(&is_stopping),
            open: Vec::new(),
            pools: BTreeMap::new(),
        };
        let alarm = Alarm::new(Some(routers));
        let rings = Arc::clone(&alarm);
        let thread = std::thread::Builder::new()
            .name("rk-accept".to_owned())
            .spawn(move || rings.run(|| desk.run()))?;
        Ok(Self { orders, bell, is_stopping, alarm, thread: Some(thread) })
    }

    /// Tells whether the thread has ended, which without being dropped it has no reason to.
    pub(crate) fn has_ended(&self) -> bool {
        self.alarm.has_ended()
    }

    /// Begins to accept at a listener.
    pub(crate) fn listen(&self, share: Share) {
        self.order(Order::Listen(share));
    }

    /// Sets whose a listener is, and how many clients that pool may have.
    pub(crate) fn limit(&self, id: ListenerId, pool: Arc<str>, clients_max: Option<u32>) {
        self.order(Order::Limit(id, pool, clients_max));
    }

    /// Closes a listener; returns when those who waited there are in the mailbox of a worker.
    pub(crate) fn unlisten(&self, id: ListenerId) {
        let (done, is_done) = mpsc::channel();
        self.order(Order::Unlisten(id, done));
        // An error means that the thread is gone, and its listeners with it.
        let _ = is_done.recv();
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        // A full pipe means that it is rung already.
        let _ = io::Write::write(&mut &self.bell, &[1]);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.alarm.expect_end();
        self.is_stopping.store(true, Ordering::Relaxed);
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Open {
    share: Share,
    rests_until: Option<Instant>,
    has_refused: bool,
}

/// What the thread has.
struct AcceptDesk {
    workers: Vec<Candidate>,
    rung: UnixStream,
    orders: mpsc::Receiver<Order>,
    is_stopping: Arc<AtomicBool>,
    open: Vec<Open>,
    /// Whose each listener is, or was: clients stay when it closes.
    pools: BTreeMap<ListenerId, Arc<str>>,
}

/// Whether a listener may have more clients waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Maybe,
    No,
}

impl AcceptDesk {
    fn run(&mut self) {
        let mut ready = Vec::new();
        loop {
            if self.wait(&mut ready).is_err() {
                // Not to be expected; without a pause it would take a processor.
                std::thread::sleep(REST);
            }
            if !self.take_orders() {
                return;
            }
            // By name: the orders may have changed the places.
            for id in ready.drain(..) {
                self.accept_some(id);
            }
        }
    }

    /// Waits until somebody knocks or the main thread rings.
    fn wait(&mut self, ready: &mut Vec<ListenerId>) -> io::Result<()> {
        let now = Instant::now();
        for open in &mut self.open {
            open.rests_until.take_if(|until| *until <= now);
        }
        let rest = self.open.iter().filter_map(|open| open.rests_until).min();
        let timeout = rest.and_then(|until| Timespec::try_from(until - now).ok());
        let awake: Vec<&Open> =
            self.open.iter().filter(|open| open.rests_until.is_none()).collect();
        let mut fds = vec![PollFd::new(&self.rung, PollFlags::IN)];
        fds.extend(
            awake.iter().map(|open| PollFd::new(&open.share.listener.socket, PollFlags::IN)),
        );
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let knocked = awake.iter().zip(fds.iter().skip(1));
        let knocked = knocked.filter(|(_, fd)| !fd.revents().is_empty());
        ready.extend(knocked.map(|(open, _)| open.share.listener.id));
        Ok(())
    }

    /// Does what the main thread wants; returns false when that is the end.
    fn take_orders(&mut self) -> bool {
        while matches!(io::Read::read(&mut &self.rung, &mut [0; 64]), Ok(1..)) {}
        loop {
            match self.orders.try_recv() {
                Ok(Order::Listen(share)) => {
                    self.pools.insert(share.listener.id, Arc::clone(&share.pool));
                    self.open.push(Open { share, rests_until: None, has_refused: false });
                }
                Ok(Order::Limit(id, pool, clients_max)) => {
                    for open in self.open.iter_mut().filter(|open| open.share.listener.id == id) {
                        open.share.pool = Arc::clone(&pool);
                        open.share.clients_max = clients_max;
                    }
                    self.pools.insert(id, pool);
                }
                Ok(Order::Unlisten(id, done)) => {
                    while self.accept_some(id) == More::Maybe {}
                    self.open.retain(|open| open.share.listener.id != id);
                    let _ = done.send(());
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Ok(Order::Stop) | Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Accepts at one listener until nobody waits, or as many as are taken at a time.
    fn accept_some(&mut self, id: ListenerId) -> More {
        for _ in 0..ACCEPTS_PER_LOOK {
            let open = self.open.iter_mut().find(|open| open.share.listener.id == id);
            let Some(open) = open else { return More::No };
            match open.share.listener.socket.accept() {
                Ok((client, _)) => {
                    if configure(&client, open.share.listener.tcp_keepalive).is_ok()
                        && has_room(&self.workers, &self.pools, open)
                    {
                        self.hand_over(id, client);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return More::No,
                Err(error) if is_about_resources(&error) => {
                    open.rests_until = Some(Instant::now() + REST);
                    return More::No;
                }
                // About the one client, which is gone.
                Err(_) => {}
            }
        }
        More::Maybe
    }

    /// Gives a client to the worker that has the fewest from this listener, then the fewest in all,
    /// passing over those that do not turn, and over those that are full while another is not: in a
    /// burst one worker's mailbox may be full while the other has no room left.
    fn hand_over(&self, id: ListenerId, client: Socket) {
        let mut order: Vec<&Candidate> = self.workers.iter().collect();
        let mut client = client;
        while !self.is_stopping.load(Ordering::Relaxed) {
            order.sort_by_key(|worker| (worker.pulse.is_stalled(), worker.pulse.load(id)));
            let has_room = order.iter().any(|worker| !worker.pulse.is_full());
            for worker in &order {
                if has_room && worker.pulse.is_full() {
                    continue;
                }
                worker.pulse.add(id);
                match worker.sender.admit(id, client) {
                    Ok(()) => return,
                    Err(back) => {
                        worker.pulse.remove(id);
                        client = back;
                    }
                }
            }
            std::thread::sleep(MAILBOX_WAIT);
        }
    }
}

fn is_about_resources(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EBADF)
    )
}

/// Linux hands a listener's options down to the sockets that it accepts.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "other systems need it")]
const fn configure(_client: &Socket, _tcp_keepalive: bool) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn configure(client: &Socket, tcp_keepalive: bool) -> io::Result<()> {
    if client.local_addr()?.is_unix() {
        return Ok(());
    }
    client.set_tcp_nodelay(true)?;
    client.set_keepalive(tcp_keepalive)
}

/// Tells whether the listener's pool may have another client, of all its listeners and of all
/// workers together.
fn has_room(
    workers: &[Candidate],
    pools: &BTreeMap<ListenerId, Arc<str>>,
    open: &mut Open,
) -> bool {
    let Share { listener, pool, clients_max } = &open.share;
    let Some(most) = clients_max else { return true };
    let ids = pools.iter().filter(|(_, of)| *of == pool).map(|(&id, _)| id);
    let of_worker = |id| workers.iter().map(move |worker| worker.pulse.load(id).0);
    let clients: u32 = ids.flat_map(of_worker).sum();
    let has_room = clients < *most;
    if !has_room && !open.has_refused {
        let address = SockRef::from(&listener.socket).local_addr().ok();
        let address = address.and_then(|address| address.as_socket()).map(|at| at.to_string());
        tracing::warn!(
            address = address.unwrap_or_else(|| "a unix socket".to_owned()),
            clients_max = most,
            "client refused: client_connections is reached"
        );
    }
    // One line each time the limit is reached, not one per client.
    open.has_refused = !has_room;
    has_room
}
