//! The message by which Sentinels find each other and spread where a master is.

use super::instance::{Address, AddressError, Epoch, MasterName, RunId};
use crate::limits;
use crate::wire::resp::encode;

/// The channel that hellos are published on, at servers and at peers.
pub const CHANNEL: &str = "__sentinel__:hello";

/// What a Sentinel says about itself and about one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Where the sender can be reached.
    pub from: Address,
    /// Who the sender is.
    pub run_id: RunId,
    /// The latest election that it knows of, of any master.
    pub current_epoch: Epoch,
    /// What the master is called.
    pub master: MasterName,
    /// Where the master is. A leader tells the promoted replica's address from the moment on that
    /// the replica said that it is a master.
    pub address: Address,
    /// The election that gave the master this address.
    pub config_epoch: Epoch,
}

/// Why a message is no hello. It is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// Longer than [`limits::HELLO_BYTES_MAX`].
    TooLong,
    /// Not eight fields.
    FieldCount,
    /// The sender's address.
    From(AddressError),
    /// The sender's ID.
    RunId,
    /// The current epoch.
    CurrentEpoch,
    /// The master's name.
    Master,
    /// The master's address.
    Address(AddressError),
    /// The epoch of the configuration.
    ConfigEpoch,
}

impl Hello {
    /// Reads a message.
    ///
    /// Only what [`encode`](Self::encode) writes is taken, so both directions agree byte by byte.
    ///
    /// # Errors
    ///
    /// The first field that is wrong, the count of fields before all.
    pub fn parse(message: &[u8]) -> Result<Self, HelloError> {
        if message.len() > limits::HELLO_BYTES_MAX {
            return Err(HelloError::TooLong);
        }
        let mut fields = message.split(|byte| *byte == b',');
        let mut fixed: [&[u8]; 8] = [b""; 8];
        for slot in &mut fixed {
            *slot = fields.next().ok_or(HelloError::FieldCount)?;
        }
        if fields.next().is_some() {
            return Err(HelloError::FieldCount);
        }
        let [host, port, run_id, current_epoch, master, to_host, to_port, config_epoch] = fixed;
        let master = std::str::from_utf8(master).ok().and_then(MasterName::new);
        Ok(Self {
            from: Address::parse(host, port).map_err(HelloError::From)?,
            run_id: RunId::parse(run_id).ok_or(HelloError::RunId)?,
            current_epoch: Epoch::parse(current_epoch).ok_or(HelloError::CurrentEpoch)?,
            master: master.ok_or(HelloError::Master)?,
            address: Address::parse(to_host, to_port).map_err(HelloError::Address)?,
            config_epoch: Epoch::parse(config_epoch).ok_or(HelloError::ConfigEpoch)?,
        })
    }

    /// Returns the message.
    pub fn encode(&self) -> String {
        let Self { from, run_id, current_epoch, master, address, config_epoch } = self;
        let (host, port) = (from.host(), from.port());
        let (to_host, to_port) = (address.host(), address.port());
        format!(
            "{host},{port},{run_id},{current_epoch},{master},{to_host},{to_port},{config_epoch}"
        )
    }

    /// Appends the command that publishes it.
    pub fn encode_publish(&self, out: &mut Vec<u8>) {
        encode::request(out, &[b"PUBLISH", CHANNEL.as_bytes(), self.encode().as_bytes()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "127.0.0.1,25511,ed876f246f47abe4498cf4d7717a90ad6aedc381,1,mymaster,127.0.0.1,25502,2";

    #[test]
    fn a_hello_is_written_as_it_was_read() {
        let hello = Hello::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(hello.current_epoch.get(), 1);
        assert_eq!(hello.config_epoch.get(), 2);
        assert_eq!(hello.address.port(), 25502);
        assert_eq!(hello.encode(), GOOD);
    }

    #[test]
    fn each_wrong_field_has_its_own_error() {
        let with = |at: usize, text: &str| {
            let mut fields: Vec<&str> = GOOD.split(',').collect();
            fields[at] = text;
            Hello::parse(fields.join(",").as_bytes()).unwrap_err()
        };
        assert_eq!(with(0, ""), HelloError::From(AddressError::Host));
        assert_eq!(with(1, "0"), HelloError::From(AddressError::Port));
        assert_eq!(with(2, "abc"), HelloError::RunId);
        assert_eq!(with(3, "-1"), HelloError::CurrentEpoch);
        assert_eq!(with(3, "18446744073709551615"), HelloError::CurrentEpoch);
        assert_eq!(with(4, "a b"), HelloError::Master);
        assert_eq!(with(5, "a\nb"), HelloError::Address(AddressError::Host));
        assert_eq!(with(6, "65536"), HelloError::Address(AddressError::Port));
        assert_eq!(with(7, "01"), HelloError::ConfigEpoch);
        assert_eq!(with(7, "1,2"), HelloError::FieldCount);
        assert_eq!(Hello::parse(b"garbage"), Err(HelloError::FieldCount));
        assert_eq!(Hello::parse(&[b','; 2000]), Err(HelloError::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_written_byte_by_byte(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "[a-z0-9.:]{1,9},[0-9]{1,5},[0-9a-f]{40},[0-9]{1,20},\\PC{1,9},[a-z:]{1,9},[0-9]{1,5},[0-9]{1,3}",
        ) {
            for message in [bytes.as_slice(), text.as_bytes()] {
                if let Ok(hello) = Hello::parse(message) {
                    let written = hello.encode();
                    prop_assert_eq!(written.as_bytes(), message);
                }
            }
        }
    }
}
