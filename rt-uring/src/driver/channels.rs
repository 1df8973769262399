//! The part of the loop that is about channels.

use std::net::SocketAddr;

use ringkeeper_core::id::ChannelId;
use ringkeeper_core::io::{ChannelSpec, Drive, Host, Input, Trouble};
use ringkeeper_core::limits::{LATE, RECEIVE_BYTES_MAX};
use ringkeeper_core::time::Instant;

use super::Driver;
use crate::datagram::Look;

/// Datagrams that one channel may give in one turn, before others have had theirs.
const DATAGRAMS_PER_LOOK: usize = 64;

/// What the worker must hear of a channel.
pub(super) enum ChannelNews {
    Opened(Result<(), i32>),
    Unsent(i32),
}

impl<D: Drive, H: Host> Driver<D, H> {
    /// Takes in that a channel became readable.
    pub(super) fn note_readable(&mut self, channel: ChannelId, has_more: bool) {
        let Some(descriptor) = self.channels.polled(channel) else { return };
        if !has_more {
            self.ring.poll_channel(channel, &descriptor);
        }
        if !self.readable.contains(&channel) {
            self.readable.push_back(channel);
        }
    }

    /// Reads the channels that became readable, each once: what is left over waits for the next
    /// turn.
    pub(super) fn read_readable(&mut self) {
        for _ in 0..self.readable.len() {
            if let Some(channel) = self.readable.pop_front()
                && !self.read_channel(channel)
            {
                self.readable.push_back(channel);
            }
        }
    }

    /// Tells what became of a channel.
    pub(super) fn tell_channel(&mut self, channel: ChannelId, news: ChannelNews) {
        self.tell(match news {
            ChannelNews::Opened(result) => Input::ChannelOpened { channel, result },
            ChannelNews::Unsent(errno) => {
                Input::Trouble { channel, trouble: Trouble::Unsent(errno) }
            }
        });
    }

    pub(super) fn close_channel(&mut self, channel: ChannelId) {
        if self.channels.close(channel) {
            self.ring.cancel_channel(channel);
        }
    }

    pub(super) fn send_datagram(
        &mut self,
        channel: ChannelId,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) {
        if let Err(errno) = self.channels.send(channel, to, bytes) {
            self.channel_news.push_back((channel, ChannelNews::Unsent(errno)));
        }
    }

    /// Tells whether channels have to be read before what was due at that moment. When the ring was
    /// entered for the last time it told what had come, so on time there is nothing in channels
    /// that are not known to be readable, but what came in the microseconds since.
    pub(super) fn must_read_channels(&self, due: Instant) -> bool {
        let is_late = self.now - due >= LATE;
        is_late
            || self.ring.has_batch()
            || !self.readable.is_empty()
            || self.drive.reads_first(self.now)
    }

    /// Hands over what waits in every channel, announced or not.
    pub(super) fn read_channels(&mut self) {
        let mut position = 0;
        while let Some(channel) = self.channels.at(position) {
            position += 1;
            self.read_channel(channel);
        }
    }

    /// Hands over what waits in a channel; tells whether that was all.
    fn read_channel(&mut self, channel: ChannelId) -> bool {
        for _ in 0..DATAGRAMS_PER_LOOK {
            let trouble = match self.channels.read(channel, &mut self.space) {
                Look::Blocked => return true,
                Look::Bytes(count) => {
                    let bytes = self.space.get(..count).unwrap_or_default();
                    self.drive.handle(self.now, Input::Datagram { channel, bytes });
                    continue;
                }
                Look::Lost => Trouble::Lost,
                Look::Ended(errno) => Trouble::Ended(errno),
            };
            self.tell(Input::Trouble { channel, trouble });
        }
        false
    }

    pub(super) fn open_channel(&mut self, channel: ChannelId, spec: &ChannelSpec) {
        self.space.resize(RECEIVE_BYTES_MAX, 0);
        let opened = self.channels.open(channel, spec);
        if let Ok(Some(descriptor)) = &opened {
            self.ring.poll_channel(channel, descriptor);
        }
        let result = opened.map(|_| ());
        self.channel_news.push_back((channel, ChannelNews::Opened(result)));
    }
}
