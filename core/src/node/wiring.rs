//! Who hears what: from what one machine says to what others are told. The only list of that kind,
//! so it has no wildcard.

use crate::io::{Event, Notice, Output};

/// Who of the control worker a notice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearer {
    /// Whoever shows figures.
    Admin,
    /// Whoever knows where masters are.
    Watch,
    /// Nobody there: it is for workers with clients.
    Nobody,
}

/// Tells who hears a notice that came to the control worker.
pub(super) const fn hearer(notice: &Notice) -> Hearer {
    match notice {
        Notice::Answer { .. }
        | Notice::ConfigRead { .. }
        | Notice::Routers(_)
        | Notice::Balance(_) => Hearer::Admin,
        // A refused connection is evidence, and no more than that.
        Notice::Sighting(_) => Hearer::Watch,
        // It has no clients of pools, so there is nothing to ask it and nothing to route; virtual
        // addresses are a worker's of their own.
        Notice::Question { .. } | Notice::Shard(_) | Notice::Health(_) => Hearer::Nobody,
    }
}

/// What of a machine's effects others on the same worker must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overheard {
    /// Nobody's business.
    Nothing,
    /// Whoever shows figures keeps it.
    Chronicle,
    /// The machine is done; the worker is not.
    Retired,
}

/// Tells what becomes of an effect of whoever knows where masters are, beside what it asks for.
pub(super) const fn overheard(output: &Output) -> Overheard {
    match output {
        Output::Event(event) => match event {
            Event::Sentinel { .. } => Overheard::Chronicle,
            Event::Drained => Overheard::Retired,
            Event::Exit { .. }
            | Event::Reloaded(_)
            | Event::ServerDown { .. }
            | Event::ServerUp { .. }
            | Event::ServerSilent { .. }
            | Event::Ejected { .. }
            | Event::Returned { .. }
            | Event::Switched { .. }
            | Event::HoldBegan { .. }
            | Event::HoldEnded { .. }
            | Event::GreetingRefused { .. }
            | Event::ServerProtocolError { .. }
            | Event::ClientRefused { .. }
            | Event::ClientOverLimit { .. }
            | Event::Router { .. }
            | Event::Check { .. }
            | Event::ChannelFailed { .. }
            | Event::TlsFailed { .. }
            | Event::Balance { .. } => Overheard::Nothing,
        },
        // A switch goes to every worker with clients, in the same turn.
        Output::Notice { .. }
        | Output::Connect { .. }
        | Output::Transmit { .. }
        | Output::PauseRead(_)
        | Output::ResumeRead(_)
        | Output::Close { .. }
        | Output::Release { .. }
        | Output::Resolve { .. }
        | Output::OpenChannel { .. }
        | Output::CloseChannel(_)
        | Output::Datagram { .. }
        | Output::EndWrite(_)
        | Output::Errand(_) => Overheard::Nothing,
    }
}
