//! One encrypted connection: bytes on the wire on one side, a worker's bytes on the other.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use rustls::{
    AlertDescription, CertificateError, Connection, Error, InvalidMessage, PeerIncompatible,
};

use crate::buf::{Buffer, BufferPool};
use crate::id::ConnId;
use crate::io::{CloseMode, CloseReason, Endpoint, Output};
use crate::limits;

/// How far a connection is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The two sides agree on keys. A worker that asked for the connection does not know yet that
    /// it stands.
    Handshake,
    Open,
    /// The worker wants no more, or must not go on; what is under way leaves first.
    Leaving,
    /// `Close` has been said, like this.
    Closed(CloseMode),
}

/// What came of bytes from the wire.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The handshake ended with these bytes.
    pub(super) is_agreed: bool,
    /// The other side said that nothing more comes.
    pub(super) has_ended: bool,
}

/// One encrypted connection.
#[derive(Debug)]
pub(super) struct Session {
    tls: Connection,
    pub(super) peer: Endpoint,
    pub(super) local: Option<SocketAddr>,
    stage: Stage,
    /// What the worker wants written, and how much of it is encrypted.
    plain: Option<Buffer>,
    taken: usize,
    is_writing: bool,
    pub(super) is_dirty: bool,
    /// What came while others shook hands.
    pub(super) waiting: Vec<u8>,
    /// Whether the worker knows that nothing more comes.
    has_told_end: bool,
    /// Whether the other side knows why, as far as it wants to.
    has_said_goodbye: bool,
    /// What the worker is told in place of the runtime's reason.
    pub(super) verdict: Option<CloseReason>,
}

impl Session {
    pub(super) fn new(mut tls: Connection, peer: Endpoint, local: Option<SocketAddr>) -> Self {
        // What may be unsent is bounded by the worker, which hands one buffer over at a time.
        tls.set_buffer_limit(None);
        Self {
            tls,
            peer,
            local,
            stage: Stage::Handshake,
            plain: None,
            taken: 0,
            is_writing: false,
            is_dirty: false,
            waiting: Vec::new(),
            has_told_end: false,
            has_said_goodbye: false,
            verdict: None,
        }
    }

    pub(super) fn is_shaking_hands(&self) -> bool {
        self.stage == Stage::Handshake
    }

    /// Tells whether the worker is to hear of what comes.
    pub(super) const fn is_heard(&self) -> bool {
        matches!(self.stage, Stage::Handshake | Stage::Open)
    }

    /// Takes bytes from the wire in and appends what they say to `plain`.
    ///
    /// # Errors
    ///
    /// Why the connection cannot go on. What is to be told to the other side is ready to leave.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        while !bytes.is_empty() {
            match self.tls.read_tls(&mut bytes) {
                // It said goodbye; what comes behind that is nothing.
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(Error::General(error.to_string())),
            }
            let state = self.tls.process_new_packets()?;
            let more = state.plaintext_bytes_to_read();
            if more > 0 {
                let at = plain.len();
                plain.resize(at + more, 0);
                let room = plain.get_mut(at..).unwrap_or_default();
                let read = self.tls.reader().read_exact(room);
                read.map_err(|error| Error::General(error.to_string()))?;
            }
            progress.has_ended |= state.peer_has_closed();
        }
        if self.stage == Stage::Handshake && !self.tls.is_handshaking() {
            self.stage = Stage::Open;
            progress.is_agreed = true;
        }
        progress.has_ended = progress.has_ended && self.end();
        Ok(progress)
    }

    /// Takes in that nothing more comes on the wire. Returns whether that is news for the worker.
    pub(super) const fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.has_told_end, true)
    }

    /// Takes a write of the worker.
    pub(super) fn write(&mut self, buffer: Buffer) {
        debug_assert!(self.plain.is_none(), "a write is in flight");
        self.plain = Some(buffer);
        self.taken = 0;
    }

    /// Takes in that a write is done. Returns the worker's buffer if all of it has left.
    pub(super) fn sent(&mut self) -> Option<Buffer> {
        self.is_writing = false;
        let taken = self.taken;
        self.plain.take_if(|plain| plain.len() == taken)
    }

    /// Takes in that the worker is done. Returns whether to close at once.
    pub(super) fn close(&mut self, mode: CloseMode) -> bool {
        match (mode, &self.stage) {
            (CloseMode::Abort, Stage::Closed(CloseMode::Abort)) => false,
            (CloseMode::Abort, _) => {
                self.stage = Stage::Closed(CloseMode::Abort);
                true
            }
            (CloseMode::Flush, Stage::Handshake | Stage::Open) => {
                if self.stage == Stage::Handshake {
                    self.plain = None;
                }
                self.stage = Stage::Leaving;
                false
            }
            (CloseMode::Flush, Stage::Leaving | Stage::Closed(_)) => false,
        }
    }

    /// Goes no further than telling the other side why.
    pub(super) fn give_up(&mut self) {
        self.plain = None;
        self.waiting = Vec::new();
        self.verdict.get_or_insert(CloseReason::Other(PROTOCOL_ERROR));
        if self.is_heard() {
            self.stage = Stage::Leaving;
        }
    }

    /// Returns what has to be done on the wire; there may be more after that.
    pub(super) fn poll(&mut self, conn: ConnId, pool: &mut BufferPool) -> Option<Output> {
        if matches!(self.stage, Stage::Closed(_)) {
            return None;
        }
        if !self.is_writing {
            let mut buffer = pool.take();
            self.fill(&mut buffer);
            if !buffer.is_empty() {
                self.is_writing = true;
                return Some(Output::Transmit { conn, buffer });
            }
            pool.give(buffer);
        }
        if self.has_said_goodbye && !self.tls.wants_write() {
            self.stage = Stage::Closed(CloseMode::Flush);
            return Some(Output::Close { conn, mode: CloseMode::Flush });
        }
        None
    }

    /// Encrypts what is next.
    fn fill(&mut self, buffer: &mut Buffer) {
        self.encrypt();
        let has_plain = self.plain.as_ref().is_some_and(|plain| self.taken < plain.len());
        if self.stage == Stage::Leaving && !has_plain && !self.has_said_goodbye {
            self.has_said_goodbye = true;
            if self.verdict.is_none() && !self.tls.is_handshaking() {
                self.tls.send_close_notify();
            }
        }
        while self.tls.wants_write() {
            // A vector takes everything.
            if !matches!(self.tls.write_tls(buffer), Ok(1..)) {
                break;
            }
        }
    }

    fn encrypt(&mut self) {
        if self.tls.is_handshaking() {
            return;
        }
        let Some(plain) = &self.plain else { return };
        let end = plain.len().min(self.taken + limits::TLS_WRITE_BYTES_MAX);
        let part = plain.get(self.taken..end).unwrap_or_default();
        // Without a limit it takes everything.
        self.taken += self.tls.writer().write(part).unwrap_or(part.len());
    }
}

/// What the operating system calls a breach of a protocol, on Linux; where it is another number
/// only the log differs.
const PROTOCOL_ERROR: i32 = 71;

/// Says what went wrong so that an operator knows where to look.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's words do for all others")]
pub(super) fn explain(error: &Error) -> String {
    let hint = match error {
        // The other one is what a CA of the same name and another key makes.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "its certificate is signed by no CA of tls-ca-cert-file and tls-ca-cert-dir",
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired",
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet",
        Error::NoCertificatesPresented => "it has no certificate, and tls-auth-clients wants one",
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it does not trust the CA of our certificate"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of us, and there is none"
        }
        Error::AlertReceived(AlertDescription::BadCertificate) => {
            "it does not accept our certificate"
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "what it sends is not TLS",
        Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
        | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "there is no version of TLS that both speak"
        }
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}
