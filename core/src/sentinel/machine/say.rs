//! What subscribers, the log and the notification scripts are told.

use super::links::Node;
use super::{MasterId, Sentinel};
use crate::io::{self, Loudness, Output};
use crate::sentinel::event::{Event, Level, Plain, Subject, Who};
use crate::sentinel::instance::{Address, RunId};

/// An event in words.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) level: Level,
    pub(super) channel: &'static str,
    pub(super) text: String,
}

impl Said {
    pub(super) fn of(event: &Event<'_>) -> Self {
        Self { level: event.level(), channel: event.channel(), text: event.to_string() }
    }
}

const fn loudness(level: Level) -> Loudness {
    match level {
        Level::Verbose => Loudness::Verbose,
        Level::Notice => Loudness::Notice,
        Level::Warning => Loudness::Warning,
    }
}

impl Sentinel {
    /// Tells everybody; `about` is whose notification script runs if it is loud.
    pub(super) fn say(&mut self, about: Option<MasterId>, said: Said) {
        let Said { level, channel, text } = said;
        self.clients.publish(channel, &text);
        if level == Level::Warning
            && let Some(master) = about.and_then(|id| self.masters.get(&id))
            && let Some(path) = &master.settings.notification_script
        {
            let argv = [path.as_str(), channel, &text].map(|word| word.as_bytes().to_vec());
            self.scripts.queue(argv.to_vec(), Vec::new());
        }
        let event = io::Event::Sentinel { loudness: loudness(level), name: channel, message: text };
        self.out.push_back(Output::Event(event));
    }

    /// Tells what concerns no master.
    pub(super) fn say_own(&mut self, event: &Event<'_>) {
        self.say(None, Said::of(event));
    }

    /// Tells about a server.
    pub(super) fn say_plain(&mut self, id: MasterId, plain: Plain, node: Node) {
        let subject = self.masters.get(&id).and_then(|master| master.subject(node));
        let Some(said) = subject.map(|subject| Said::of(&Event::Plain(plain, subject))) else {
            return;
        };
        self.say(Some(id), said);
    }

    /// Tells about a peer.
    pub(super) fn say_peer(&mut self, id: MasterId, plain: Plain, peer: &RunId, at: &Address) {
        let Some(master) = self.masters.get(&id) else { return };
        let subject = Subject {
            who: Who::Sentinel(peer),
            address: at,
            master: master.name(),
            master_address: &master.server.address,
        };
        let said = Said::of(&Event::Plain(plain, subject));
        self.say(Some(id), said);
    }

    /// Tells the log only.
    pub(super) fn note(&mut self, message: String) {
        self.out.push_back(Output::Event(io::Event::Sentinel {
            loudness: Loudness::Warning,
            name: "",
            message,
        }));
    }
}
