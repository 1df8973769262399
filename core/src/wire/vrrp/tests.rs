use super::*;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const UNICAST: Path = Path::V4 { source: ROUTER, destination: PEER };

fn advert(interval: AdvertInterval) -> Advert<'static> {
    Advert {
        vrid: Vrid::new(51).unwrap(),
        priority: Priority(150),
        interval,
        auth: Auth::None,
        addresses: Addresses::new(Family::V4, &[10, 77, 0, 100]).unwrap(),
    }
}

fn v3() -> Advert<'static> {
    advert(AdvertInterval::centiseconds(50).unwrap())
}

fn encoded(advert: &Advert<'_>, dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    advert.encode(&UNICAST, dialect, &mut out);
    out
}

#[test]
fn every_dialect_is_read_and_told_apart() {
    for dialect in [Dialect::PseudoHeader, Dialect::Plain, Dialect::GroupPseudoHeader] {
        let bytes = encoded(&v3(), dialect);
        let received = Advert::parse(&bytes, &UNICAST).unwrap();
        assert_eq!(received, Received { advert: v3(), dialect: Some(dialect) });
    }
    let v2 = advert(AdvertInterval::seconds(1).unwrap());
    let bytes = encoded(&v2, Dialect::Plain);
    assert_eq!(Advert::parse(&bytes, &UNICAST), Ok(Received { advert: v2, dialect: None }));
}

#[test]
fn every_damage_has_its_name() {
    let v3 = encoded(&v3(), Dialect::Plain);
    let v2 = encoded(&advert(AdvertInterval::seconds(1).unwrap()), Dialect::Plain);
    // The message, the byte to change, its value, and the error. The sum is kept right.
    let cases: [(&[u8], usize, u8, VrrpError); 10] = [
        (&v3, 0, 0x41, VrrpError::Version(4)),
        (&v3, 0, 0x32, VrrpError::Type(2)),
        (&v3, 1, 0, VrrpError::Vrid),
        (&v3, 3, 2, VrrpError::TooShort { received: 12, expected: 16 }),
        (&v3, 3, 0, VrrpError::TooLong { received: 12, expected: 8 }),
        (&v3, 5, 0, VrrpError::Interval),
        (&v2, 5, 0, VrrpError::Interval),
        (&v2, 4, 2, VrrpError::AuthHeader),
        (&v2, 4, 9, VrrpError::AuthType(9)),
        (&v2, 0, 0x31, VrrpError::TooLong { received: 20, expected: 12 }),
    ];
    for (message, at, byte, error) in cases {
        let mut damaged = message.to_vec();
        damaged[at] = byte;
        damaged[6..8].copy_from_slice(&[0, 0]);
        let sum = Checksum::new().plus(&damaged).finish();
        damaged[6..8].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Advert::parse(&damaged, &UNICAST), Err(error));
    }
    let mut damaged = v3.clone();
    damaged[11] ^= 1;
    assert_eq!(Advert::parse(&damaged, &UNICAST), Err(VrrpError::Checksum));
    let short = VrrpError::TooShort { received: 7, expected: 8 };
    assert_eq!(Advert::parse(&v3[..7], &UNICAST), Err(short));
}

#[test]
fn version_2_does_not_carry_ipv6() {
    let path = Path::V6 { source: Ipv6Addr::LOCALHOST, destination: GROUP_V6 };
    let message = [0x21, 51, 100, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Advert::parse(&message, &path), Err(VrrpError::VersionFamily));
}

#[test]
fn a_password_is_cut_and_filled_and_not_shown() {
    assert_eq!(Password::new(b"abcdefghijkl"), Password::new(b"abcdefgh"));
    assert_ne!(Password::new(b"abc"), Password::new(b"abcd"));
    assert!(!format!("{:?}", Password::new(b"abc")).contains("abc"));
}

#[test]
fn address_lists_compare_as_sets_of_the_same_size() {
    let mut bytes = Vec::new();
    let (a, b) = (IpAddr::V4(ROUTER), IpAddr::V4(PEER));
    encode_addresses([a, b, b, a, a, a], &mut bytes);
    let list =
        |from: usize, to: usize| Addresses::new(Family::V4, &bytes[from * 4..to * 4]).unwrap();
    assert!(list(0, 2).is_same_set(&list(2, 4)));
    assert!(!list(0, 2).is_same_set(&list(0, 1)));
    assert!(!list(0, 2).is_same_set(&list(4, 6)));
    assert!(!list(4, 6).is_same_set(&list(0, 2)));
    assert_eq!(Addresses::new(Family::V4, &bytes[..5]), None);
    assert_eq!(Addresses::new(Family::V4, &[0; 256 * 4]), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_and_what_it_reads_is_what_it_writes(
        mut message in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
        version in 2_u8..4,
        repair in proptest::bool::ANY,
    ) {
        if let [start, _, _, count, .., ] = &mut message[..] {
            *start = version << 4 | 1;
            *count %= 12;
        }
        if repair && message.len() >= 8 {
            message[6..8].copy_from_slice(&[0, 0]);
            let sum = Checksum::new().plus(&message).finish();
            message[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(received) = Advert::parse(&message, &UNICAST) {
            let again = encoded(&received.advert, received.dialect.unwrap_or_default());
            let read = Advert::parse(&again, &UNICAST).unwrap();
            proptest::prop_assert_eq!(read.advert, received.advert);
        }
    }
}
