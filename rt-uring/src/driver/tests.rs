use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{AtCapacity, Deadline, Errand, Event, Notice, Recipient};
use ringkeeper_core::limits::LATE;

use super::*;

/// Remembers what came.
#[derive(Default)]
struct Recorder {
    bytes: Vec<u8>,
    eofs: usize,
    /// Nothing that is due depends on what waits in channels.
    is_beating: bool,
    outputs: VecDeque<Output>,
}

impl Drive for Recorder {
    fn accept(&mut self, _: Instant, _: ListenerId, _: Endpoint) -> Result<ConnId, AtCapacity> {
        Err(AtCapacity)
    }

    fn handle(&mut self, _: Instant, input: Input<'_>) {
        match input {
            Input::Received { bytes, .. } => self.bytes.extend_from_slice(bytes),
            Input::Eof { .. } => self.eofs += 1,
            Input::Connected { .. }
            | Input::Sent { .. }
            | Input::Closed { .. }
            | Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Command(_)
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => panic!("{input:?}"),
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    fn reads_first(&self, _: Instant) -> bool {
        !self.is_beating
    }
}

/// A driver of a recorder, and what keeps its mailbox open; none where there is no io_uring.
fn driver() -> Option<(Driver<Recorder, Deaf>, crate::MailboxSender)> {
    let Ok((ring, _)) = Ring::best() else {
        println!("skipped: no io_uring here");
        return None;
    };
    let (sender, mailbox) = crate::mailbox().unwrap();
    let start = std::time::Instant::now();
    let driver = Driver::new(ring, Recorder::default(), start, Vec::new(), mailbox, Deaf).unwrap();
    Some((driver, sender))
}

#[test]
fn bytes_beyond_what_a_paused_worker_must_expect_wait_for_it_in_order() {
    let Some((mut driver, _sender)) = driver() else { return };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let conn = ConnId::client(0, 0);
    driver.admit(conn, Socket::from(OwnedFd::from(ours)));
    theirs.write_all(b"early ").unwrap();
    driver.ring.enter(Duration::ZERO).unwrap();
    theirs.write_all(b"late ").unwrap();
    drop(theirs);

    // The worker has paused, and has had its share, while all of it is in the kernel's hands:
    // the cancellation is written and not submitted.
    driver.pause(conn);
    driver.table.get_mut(conn).unwrap().late = u8::try_from(READS_IN_FLIGHT).unwrap();
    for _ in 0..3 {
        driver.ring.enter(Duration::ZERO).unwrap();
        driver.give_inputs();
    }
    assert_eq!(driver.drive.bytes, b"");
    assert_eq!(driver.drive.eofs, 0);
    assert!(driver.table.get_mut(conn).unwrap().is_stashed);

    driver.resume(conn);
    assert_eq!(driver.timeout(), Duration::ZERO, "there is something to tell");
    for _ in 0..3 {
        driver.give_inputs();
        driver.ring.enter(Duration::from_millis(10)).unwrap();
    }
    driver.give_inputs();
    assert_eq!(driver.drive.bytes, b"early late ");
    assert_eq!(driver.drive.eofs, 1);
}

#[test]
fn channels_are_read_first_unless_what_is_due_is_on_time_and_does_not_depend_on_them() {
    let Some((mut driver, _sender)) = driver() else { return };
    let due = driver.now;
    assert!(driver.must_read_channels(due));
    driver.drive.is_beating = true;
    assert!(!driver.must_read_channels(due));
    driver.readable.push_back(ChannelId(1));
    assert!(driver.must_read_channels(due), "more waits than one turn takes");
    driver.readable.clear();
    driver.now += LATE;
    assert!(driver.must_read_channels(due), "it may have been paused");
}

struct Deaf;

impl Host for Deaf {
    fn event(&mut self, _: Event) {}
    fn errand(&mut self, _: Errand) {}
    fn notice(&mut self, _: Recipient, _: Notice) {}
}
