use super::*;

fn change(address: &str, prefix: u8) -> AddressChange {
    AddressChange {
        interface: 7,
        address: address.parse().unwrap(),
        prefix,
        scope: 0,
        label: Some("eth0:1".to_owned()),
        broadcast: None,
        has_no_prefix_route: false,
    }
}

/// Turns a request around: the kernel's news have the same form.
fn news_of(request: &[u8]) -> News {
    let mut all = messages(request);
    let message = all.next().unwrap();
    assert_eq!(message.request, 5);
    assert_eq!(all.next(), None);
    message.news
}

#[test]
fn an_address_keeps_its_interface_network_and_origin() {
    for (text, prefix) in [("10.0.0.1", 24), ("fd77::1", 64), ("fe80::1", 128)] {
        let expected = Address {
            interface: 7,
            address: text.parse().unwrap(),
            prefix,
            flags: if text.contains(':') { 2 } else { 0 },
            origin: ORIGIN,
        };
        let added = news_of(&add_address(5, &change(text, prefix)));
        assert_eq!(added, News::Address(expected));
        let News::AddressGone(gone) = news_of(&delete_address(5, &change(text, prefix))) else {
            panic!("not gone")
        };
        assert_eq!(gone, Address { flags: 0, origin: 0, ..expected });
    }
}

#[test]
fn a_link_keeps_its_name_mac_and_what_it_lies_on() {
    let mac = Mac([0, 0, 0x5e, 0, 1, 51]);
    let News::Link(link) = news_of(&add_virtual_link(5, "vrrp.51", 3, mac)) else {
        panic!("no link")
    };
    assert_eq!((link.name.as_str(), link.mac, link.below), ("vrrp.51", Some(mac), Some(3)));
    assert!(!link.is_running);
}

/// Recorded from a kernel 6.1: an answer, then the end of a list.
#[test]
fn answers_and_ends_have_their_error_numbers() {
    let mut bytes = Vec::new();
    bytes.extend(20_u32.to_ne_bytes());
    bytes.extend(3_u16.to_ne_bytes());
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend(9_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(0_i32.to_ne_bytes());
    let mut answer = bytes.clone();
    answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    answer[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
    answer.extend(bytes);
    let news: Vec<_> = messages(&answer).map(|message| (message.request, message.news)).collect();
    assert_eq!(news, [(9, News::Answer(EEXIST)), (9, News::Done(0))]);
}

#[test]
fn requests_are_aligned_and_tell_their_length() {
    let route = RouteChange {
        destination: ("10.1.0.0".parse().unwrap(), 16),
        via: Some("10.0.0.2".parse().unwrap()),
        interface: Some(7),
        source: None,
        metric: Some(9),
        table: Some(1000),
        scope: None,
        is_onlink: true,
    };
    for request in [
        dump_links(5),
        dump_addresses(5),
        add_address(5, &change("10.0.0.1", 32)),
        delete_address(5, &change("fd77::1", 128)),
        add_route(5, &route),
        delete_route(5, &route),
        set_link_up(5, 7),
        delete_link(5, 7),
    ] {
        assert_eq!(word(&request, 0), Some(request.len() as u32));
        assert_eq!(request.len() % 4, 0);
        assert_eq!(messages(&request).count(), 1);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_run_on(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        kind in 0_u16..26,
        length in 0_u32..220,
    ) {
        let mut datagram = length.to_ne_bytes().to_vec();
        datagram.extend(kind.to_ne_bytes());
        datagram.extend(bytes);
        proptest::prop_assert!(messages(&datagram).count() <= datagram.len() / HEADER_BYTES + 1);
    }
}
