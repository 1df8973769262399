//! A short encrypted conversation with a server whose name nobody asks for: a checker's.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::session::explain;
use super::{BadMaterial, Ground};
use crate::buf::Buffer;

/// Makes what conversations need in which nobody has to prove who it is: as keepalived's `SSL_GET`,
/// which asks whether a server works and trusts it with nothing.
///
/// # Errors
///
/// [`BadMaterial::NoVersion`]
pub fn anybody(ground: &Ground) -> Result<Arc<ClientConfig>, BadMaterial> {
    let schemes = ground.provider.signature_verification_algorithms.supported_schemes();
    let builder =
        ClientConfig::builder_with_details(Arc::clone(&ground.provider), Arc::clone(&ground.clock));
    let mut config = builder
        .with_protocol_versions(&ground.versions.list())
        .map_err(|_| BadMaterial::NoVersion)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { schemes }))
        .with_no_client_auth();
    // Every check is to be a whole one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Whose key it is was not asked, so it does not matter who has it.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// One conversation.
#[derive(Debug)]
pub struct Talk {
    tls: ClientConnection,
}

impl Talk {
    /// Begins one with a server; `name` is what it is told that it is asked for.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub fn begin(
        config: Arc<ClientConfig>,
        ip: IpAddr,
        name: Option<&str>,
    ) -> Result<Self, String> {
        // Of an address nothing is said on the wire.
        let name = match name.map(|name| ServerName::try_from(name.to_owned())) {
            Some(Ok(name)) => name,
            Some(Err(_)) | None => ServerName::from(ip),
        };
        let tls = ClientConnection::new(config, name).map_err(|error| explain(&error))?;
        Ok(Self { tls })
    }

    /// Says something, as soon as keys are agreed.
    pub fn say(&mut self, bytes: &[u8]) {
        // What is said before that is kept, up to 64 KiB; a question is shorter.
        let _ = self.tls.writer().write_all(bytes);
    }

    /// Takes bytes from the wire in and appends what they say to `plain`. Returns whether the
    /// server says nothing more.
    ///
    /// # Errors
    ///
    /// Why the conversation cannot go on, for people.
    pub fn hear(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        let mut has_ended = false;
        while !bytes.is_empty() {
            match self.tls.read_tls(&mut bytes) {
                // It said goodbye; what comes behind that is nothing.
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
            let state = self.tls.process_new_packets().map_err(|error| explain(&error))?;
            let more = state.plaintext_bytes_to_read();
            if more > 0 {
                let at = plain.len();
                plain.resize(at + more, 0);
                let room = plain.get_mut(at..).unwrap_or_default();
                self.tls.reader().read_exact(room).map_err(|error| error.to_string())?;
            }
            has_ended |= state.peer_has_closed();
        }
        Ok(has_ended)
    }

    /// Appends what is to be written.
    pub fn write_to(&mut self, buffer: &mut Buffer) {
        while self.tls.wants_write() {
            // A vector takes everything.
            if !matches!(self.tls.write_tls(buffer), Ok(1..)) {
                break;
            }
        }
    }
}
