//! Another process takes over, with the listening sockets and the clients of this one.
//!
//! The two talk over a socket pair: the old process sends its listeners, the new one starts and
//! says that it is ready, then the old one sends each client as soon as nothing is under way for
//! it, and ends. A message is a byte for its kind, four bytes of length, the content, and with the
//! first byte at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::Socket;

use crate::host::sys;

/// Tells the new process where the socket is, and who its predecessor is: `PID:DESCRIPTOR`.
const VARIABLE: &str = "RINGKEEPER_UPGRADE";

/// How long one process waits for the other at any step. A start takes milliseconds, unless names
/// have to be looked up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of one message: the largest request, the longest name, and what goes with them.
const CONTENT_BYTES_MAX: usize = 600 * 1024 * 1024;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A listening socket and where it listens.
    Listener = 1,
    /// There are no more listeners; what else the old process leaves, as text.
    Start = 2,
    /// The new process serves.
    Ready = 3,
    /// A client and what is known of it.
    Client = 4,
    /// There are no more clients.
    End = 5,
    /// The new process is alone; how many clients it has got.
    Finished = 6,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Listener, Self::Start, Self::Ready, Self::Client, Self::End, Self::Finished];
}

struct Message {
    kind: Kind,
    content: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

fn send(
    mut link: &UnixStream,
    kind: Kind,
    content: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(io::Error::other)?.to_be_bytes();
    let [a, b, c, d] = len;
    let header = [kind as u8, a, b, c, d];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let parts = [IoSlice::new(&header)];
    let sent = retry_on_intr(|| sendmsg(link, &parts, &mut control, SendFlags::NOSIGNAL))?;
    link.write_all(header.get(sent..).unwrap_or_default())?;
    link.write_all(content)
}

fn receive(mut link: &UnixStream) -> io::Result<Message> {
    let mut header = [0; 5];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut header)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = retry_on_intr(|| recvmsg(link, &mut parts, &mut control, flags))?.bytes;
    if got == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process has ended"));
    }
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.into_iter().next().or(descriptor);
        }
    }
    link.read_exact(header.get_mut(got..).unwrap_or_default())?;
    let [kind, a, b, c, d] = header;
    let strange = || io::Error::other("the other process speaks another language");
    let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind).ok_or_else(strange)?;
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(io::Error::other)?;
    if len > CONTENT_BYTES_MAX {
        return Err(strange());
    }
    let mut content = vec![0; len];
    link.read_exact(&mut content)?;
    Ok(Message { kind, content, descriptor })
}

/// The process that is to take over, as the old one has it.
pub(crate) struct Successor {
    child: Child,
    link: UnixStream,
}

/// Returns the program that runs, or what has been put in its place since.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.as_os_str().to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(text) => Ok(PathBuf::from(text)),
        None => Ok(path),
    }
}

impl Successor {
    /// Starts the program anew, with the arguments of this process.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (link, theirs) = UnixStream::pair()?;
        link.set_read_timeout(Some(PATIENCE))?;
        link.set_write_timeout(Some(PATIENCE))?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program()?);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        let value = format!("{}:{}", std::process::id(), theirs.as_raw_fd());
        command.args(arguments).env(VARIABLE, value);
        // They name this process, or descriptors that it alone was given.
        for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let child = command.spawn()?;
        Ok(Self { child, link })
    }

    /// Returns the number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a listening socket.
    pub(crate) fn give_listener(&self, place: &str, socket: &Socket) -> io::Result<()> {
        send(&self.link, Kind::Listener, place.as_bytes(), Some(socket.as_fd()))
    }

    /// Gives it what else it is to know, as text, and waits until it serves.
    ///
    /// # Errors
    ///
    /// It does not come to that; it is ended then.
    pub(crate) fn wait_ready(&mut self, legacy: &str) -> io::Result<()> {
        let result = send(&self.link, Kind::Start, legacy.as_bytes(), None)
            .and_then(|()| receive(&self.link))
            .and_then(|message| expect(&message, Kind::Ready));
        if result.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        result
    }

    /// Gives it a client.
    pub(crate) fn give_client(&self, state: &[u8], socket: &Socket) -> io::Result<()> {
        send(&self.link, Kind::Client, state, Some(socket.as_fd()))
    }

    /// Says that there are no more, and waits until it has taken all; returns how many.
    pub(crate) fn finish(&self) -> io::Result<u32> {
        send(&self.link, Kind::End, &[], None)?;
        let message = receive(&self.link)?;
        expect(&message, Kind::Finished)?;
        let count = message.content.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        Ok(u32::from_be_bytes(*count))
    }
}

fn expect(message: &Message, kind: Kind) -> io::Result<()> {
    if message.kind == kind {
        Ok(())
    } else {
        Err(io::Error::other("the other process answered something else"))
    }
}

/// The process that is to be replaced, as the new one has it.
pub(crate) struct Predecessor {
    link: UnixStream,
}

impl Predecessor {
    /// Returns the process that started this one to take over, if one did.
    pub(crate) fn find() -> Option<Self> {
        let value = std::env::var(VARIABLE).ok()?;
        let (process, descriptor) = value.split_once(':')?;
        // A program that we started for other reasons may start us: then it is not meant.
        let parent = rustix::process::getppid()?.as_raw_nonzero().get();
        if process.parse() != Ok(parent) {
            return None;
        }
        let link = UnixStream::from(sys::inherited(descriptor.parse().ok()?)?);
        // Also the proof that it is a socket.
        link.set_read_timeout(Some(PATIENCE)).ok()?;
        link.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self { link })
    }

    /// Takes its listening sockets, with the places where they listen, and what else it leaves.
    ///
    /// # Errors
    ///
    /// It has ended, or is of a kind that we do not understand.
    pub(crate) fn legacy(&self) -> io::Result<(Vec<(String, Socket)>, String)> {
        let mut listeners = Vec::new();
        loop {
            let message = receive(&self.link)?;
            if message.kind == Kind::Start {
                let text = String::from_utf8_lossy(&message.content).into_owned();
                return Ok((listeners, text));
            }
            expect(&message, Kind::Listener)?;
            if let Some(socket) = message.descriptor {
                let place = String::from_utf8_lossy(&message.content).into_owned();
                listeners.push((place, Socket::from(socket)));
            }
        }
    }

    /// Tells it that we serve.
    pub(crate) fn ready(&self) -> io::Result<()> {
        // Clients come when they are ready, and the last one may take its time.
        self.link.set_read_timeout(None)?;
        send(&self.link, Kind::Ready, &[], None)
    }

    /// Takes the next client and what is known of it; none when there are no more.
    ///
    /// # Errors
    ///
    /// It has ended without saying so.
    pub(crate) fn next_client(&self) -> io::Result<Option<(Vec<u8>, Socket)>> {
        loop {
            let message = receive(&self.link)?;
            if message.kind == Kind::End {
                return Ok(None);
            }
            expect(&message, Kind::Client)?;
            if let Some(socket) = message.descriptor {
                return Ok(Some((message.content, Socket::from(socket))));
            }
        }
    }

    /// Tells it that it may end.
    pub(crate) fn finished(&self, clients: u32) -> io::Result<()> {
        send(&self.link, Kind::Finished, &clients.to_be_bytes(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_what_belongs_to_them_stay_together() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let pairs: Vec<_> = (0..20).map(|_| UnixStream::pair().unwrap()).collect();
        for (number, (one, _)) in pairs.iter().enumerate() {
            let content = vec![u8::try_from(number).unwrap(); number * 100];
            send(&ours, Kind::Client, &content, Some(one.as_fd())).unwrap();
        }
        send(&ours, Kind::End, &[], None).unwrap();
        let predecessor = Predecessor { link: theirs };
        for (number, (_, other)) in pairs.iter().enumerate() {
            let (content, socket) = predecessor.next_client().unwrap().unwrap();
            assert_eq!(content.len(), number * 100);
            (&socket).write_all(&[7]).unwrap();
            let mut byte = [0];
            (&*other).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [7], "client {number} is another one's");
        }
        assert!(predecessor.next_client().unwrap().is_none());
        drop(ours);
        assert!(predecessor.next_client().is_err());
    }
}
