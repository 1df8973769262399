//! The kernel of a host as virtual routers see it: addresses, packets, and a guardian that outlives
//! the process.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringkeeper_core::id::ChannelId;
use ringkeeper_core::io::{ChannelSpec, Output};
use ringkeeper_core::vrrp::keeper::{Order, Will};
use ringkeeper_core::wire::ethernet::Mac;
use ringkeeper_core::wire::netlink::{self, AddressChange, Message, News};

use crate::sentinel::process::Happening;

/// Netlink's numbers for its questions and answers.
const LIST_LINKS: u16 = 18;
const LIST_ADDRESSES: u16 = 22;
const DONE: u16 = 3;
const ERROR: u16 = 2;

/// What follows from what a thread asks for.
pub(super) enum Asked {
    /// The thread hears this.
    Told(Happening),
    /// A packet leaves for the link.
    Packet(Vec<u8>),
    /// All are told whose the address is.
    Announced,
}

/// Addresses and channels of one host.
pub(crate) struct Kernel {
    /// With who made them.
    addresses: BTreeMap<IpAddr, u8>,
    own: IpAddr,
    open: BTreeMap<ChannelId, ChannelSpec>,
    will: Will,
    /// A defect: addresses are never given up, whatever is asked.
    pub keeps_addresses: bool,
}

fn change(address: IpAddr) -> AddressChange {
    AddressChange {
        interface: 2,
        address,
        prefix: 24,
        scope: 0,
        label: None,
        broadcast: None,
        has_no_prefix_route: false,
    }
}

/// An address in the kernel's words.
fn told(address: IpAddr, origin: u8) -> Vec<u8> {
    let mut message = netlink::add_address(0, &change(address));
    let at = message.len() - 4;
    message[at] = origin;
    message
}

fn link() -> Vec<u8> {
    let mut message = netlink::add_virtual_link(0, "e0", 1, Mac([2, 0x77, 0, 0, 0, 1]));
    message[20..24].copy_from_slice(&2_u32.to_ne_bytes());
    message[24..28].copy_from_slice(&0x41_u32.to_ne_bytes());
    message
}

fn answer(kind: u16, request: u32, errno: i32) -> Vec<u8> {
    let mut bytes = 20_u32.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0, 0]);
    bytes.extend(request.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((-errno).to_ne_bytes());
    bytes
}

impl Kernel {
    pub(crate) fn new(own: IpAddr) -> Self {
        Self {
            addresses: BTreeMap::from([(own, 0)]),
            own,
            open: BTreeMap::new(),
            will: Will::default(),
            keeps_addresses: false,
        }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    fn channel(&self, is_it: impl Fn(&ChannelSpec) -> bool) -> Option<ChannelId> {
        self.open.iter().find(|(_, spec)| is_it(spec)).map(|(channel, _)| *channel)
    }

    /// Returns where packets are read.
    pub(super) fn raw(&self) -> Option<ChannelId> {
        self.channel(|spec| matches!(spec, ChannelSpec::RawIp { .. }))
    }

    /// Does what a thread asks for.
    pub(super) fn take(&mut self, output: Output) -> Vec<Asked> {
        match output {
            Output::OpenChannel { channel, spec } => {
                self.open.insert(channel, spec);
                vec![Asked::Told(Happening::Opened(channel))]
            }
            Output::CloseChannel(channel) => {
                self.open.remove(&channel);
                Vec::new()
            }
            Output::Datagram { channel, bytes, .. } => match self.open.get(&channel) {
                Some(ChannelSpec::Netlink { .. }) => self.request(&bytes),
                Some(ChannelSpec::RawIp { .. }) => vec![Asked::Packet(bytes)],
                Some(ChannelSpec::Guardian) => {
                    self.will = Will::parse(&bytes).expect("a will that can be read");
                    Vec::new()
                }
                Some(ChannelSpec::Frames { .. }) => vec![Asked::Announced],
                Some(ChannelSpec::Resets) => {
                    let order = Order::parse(&bytes).expect("an order that can be read");
                    let bytes = order.answer().to_vec();
                    vec![Asked::Told(Happening::Datagram { channel, bytes })]
                }
                other => panic!("sent to {other:?}"),
            },
            other => panic!("{other:?} is no channel's"),
        }
    }

    /// Carries a request out, as a kernel does: at once, the answers wait to be read.
    fn request(&mut self, bytes: &[u8]) -> Vec<Asked> {
        let Some(Message { request, news }) = netlink::messages(bytes).next() else {
            return Vec::new();
        };
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let (mut list, mut monitored) = (Vec::new(), None);
        match (kind, news) {
            (LIST_LINKS, _) => {
                list = link();
                list.extend(answer(DONE, request, 0));
            }
            (LIST_ADDRESSES, _) => {
                let all = self.addresses.iter();
                all.for_each(|(&address, &origin)| list.extend(told(address, origin)));
                list.extend(answer(DONE, request, 0));
            }
            (_, News::Address(one)) => {
                self.addresses.insert(one.address, netlink::ORIGIN);
                monitored = Some(told(one.address, netlink::ORIGIN));
                list = answer(ERROR, request, 0);
            }
            (_, News::AddressGone(_)) if self.keeps_addresses => {
                list = answer(ERROR, request, 0);
            }
            (_, News::AddressGone(one)) => {
                let errno = match self.addresses.remove(&one.address) {
                    Some(_) => 0,
                    None => netlink::EADDRNOTAVAIL,
                };
                monitored = (errno == 0).then(|| netlink::delete_address(0, &change(one.address)));
                list = answer(ERROR, request, errno);
            }
            other => panic!("{other:?}"),
        }
        let monitor =
            self.channel(|spec| matches!(spec, ChannelSpec::Netlink { groups } if *groups != 0));
        let query = self.channel(|spec| matches!(spec, ChannelSpec::Netlink { groups: 0 }));
        let told = [(monitor, monitored), (query, Some(list))].into_iter();
        let told = told.filter_map(|(channel, bytes)| Some((channel?, bytes?)));
        told.map(|(channel, bytes)| Asked::Told(Happening::Datagram { channel, bytes })).collect()
    }

    /// The process is gone. Returns what its guardian sends, if it still can.
    pub(super) fn crashed(&mut self, has_guardian: bool) -> Vec<Vec<u8>> {
        self.open.clear();
        let will = std::mem::take(&mut self.will);
        if !has_guardian {
            return Vec::new();
        }
        for request in &will.requests {
            self.request(request);
        }
        will.goodbyes.iter().map(|goodbye| goodbye.bytes.clone()).collect()
    }

    /// What the machine had in memory is gone.
    pub(super) fn lost_power(&mut self) {
        self.addresses = BTreeMap::from([(self.own, 0)]);
    }
}
