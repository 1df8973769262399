//! From certificates and keys to what a handshake needs.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};

/// What cryptography needs and a core has not: algorithms with their chance, and the time of day.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Algorithms, and where random bytes come from.
    pub provider: Arc<CryptoProvider>,
    /// Tells whether a certificate is valid yet, or still.
    pub clock: Arc<dyn TimeProvider>,
    /// Which versions are spoken.
    pub versions: Versions,
}

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// TLS 1.2.
    pub has_1_2: bool,
    /// TLS 1.3.
    pub has_1_3: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self { has_1_2: true, has_1_3: true }
    }
}

impl Versions {
    pub(super) fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        let all = [(self.has_1_3, &TLS13), (self.has_1_2, &TLS12)];
        all.into_iter().filter(|(is_on, _)| *is_on).map(|(_, version)| version).collect()
    }
}

/// Who we are.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads a chain, our own certificate first, and its key, both in PEM.
    ///
    /// # Errors
    ///
    /// Which of the two cannot be read, and why.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, BadMaterial> {
        let chain = certificates(chain).map_err(BadMaterial::Certificate)?;
        let is_encrypted = contains(key, b"ENCRYPTED");
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            if is_encrypted {
                BadMaterial::EncryptedKey
            } else {
                BadMaterial::Key(describe(&error))
            }
        })?;
        Ok(Self { chain, key })
    }
}

/// Whose signatures count.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: RootCertStore,
    /// As they stand in the files, to know one again that is its own authority.
    certificates: Vec<CertificateDer<'static>>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { roots: RootCertStore::empty(), certificates: Vec::new() }
    }
}

impl Trust {
    /// Adds the certificates of a text in PEM. Returns how many there were.
    ///
    /// # Errors
    ///
    /// Why the text cannot be read, or one of its certificates is not usable.
    pub fn add_pem(&mut self, text: &[u8]) -> Result<usize, BadMaterial> {
        let found = certificates(text).map_err(BadMaterial::Authority)?;
        for certificate in &found {
            let added = self.roots.add(certificate.clone());
            added.map_err(|error| BadMaterial::Authority(error.to_string()))?;
        }
        let count = found.len();
        self.certificates.extend(found);
        Ok(count)
    }

    /// Tells whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate that is trusted.
    #[default]
    Required,
    /// If there is a certificate it has to be trusted.
    Optional,
    /// Nothing.
    Off,
}

/// What is wrong with certificates, keys, or both together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadMaterial {
    /// Our own certificate cannot be read.
    Certificate(String),
    /// The key cannot be read.
    Key(String),
    /// The key is encrypted, which is not supported.
    EncryptedKey,
    /// What is to be trusted cannot be read.
    Authority(String),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    Together(String),
    /// Nobody is trusted, so nobody could be checked.
    NobodyTrusted,
    /// No version is left.
    NoVersion,
}

impl fmt::Display for BadMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "the certificate can't be read: {why}"),
            Self::Key(why) => write!(f, "the key can't be read: {why}"),
            Self::EncryptedKey => f.write_str(
                "the key is encrypted, which is not supported; decrypt it with `openssl pkey`",
            ),
            Self::Authority(why) => write!(f, "the CA certificate can't be used: {why}"),
            Self::Together(why) => write!(f, "certificate and key can't be used: {why}"),
            Self::NobodyTrusted => f.write_str("no CA certificate says who is to be trusted"),
            Self::NoVersion => f.write_str("no version of TLS is left that is spoken here"),
        }
    }
}

impl std::error::Error for BadMaterial {}

/// Makes what connections to servers need. Whoever is signed by one that is trusted is believed,
/// whatever its name: servers are known by addresses, as in Redis.
///
/// # Errors
///
/// [`BadMaterial`]
pub fn client(
    ground: &Ground,
    identity: Option<&Identity>,
    trust: &Trust,
) -> Result<Arc<ClientConfig>, BadMaterial> {
    if trust.is_empty() {
        return Err(BadMaterial::NobodyTrusted);
    }
    let verifier =
        Arc::new(ServerCheck { trust: trust.clone(), provider: Arc::clone(&ground.provider) });
    let builder =
        ClientConfig::builder_with_details(Arc::clone(&ground.provider), Arc::clone(&ground.clock));
    let builder = builder
        .with_protocol_versions(&ground.versions.list())
        .map_err(|_| BadMaterial::NoVersion)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity.cloned() {
        Some(Identity { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| BadMaterial::Together(error.to_string()))?,
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = false;
    // Connections last for days; remembering how one began is not worth it.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Makes what connections of clients need.
///
/// # Errors
///
/// [`BadMaterial`]
pub fn server(
    ground: &Ground,
    identity: &Identity,
    trust: &Trust,
    auth: ClientAuth,
) -> Result<Arc<ServerConfig>, BadMaterial> {
    let builder =
        ServerConfig::builder_with_details(Arc::clone(&ground.provider), Arc::clone(&ground.clock));
    let builder = builder
        .with_protocol_versions(&ground.versions.list())
        .map_err(|_| BadMaterial::NoVersion)?;
    let builder = match auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Required | ClientAuth::Optional => {
            if trust.is_empty() {
                return Err(BadMaterial::NobodyTrusted);
            }
            let roots = Arc::new(trust.roots.clone());
            let check =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&ground.provider));
            let check = check.build();
            let inner = check.map_err(|error| BadMaterial::Authority(error.to_string()))?;
            builder.with_client_cert_verifier(Arc::new(ClientCheck {
                inner,
                certificates: trust.certificates.clone(),
                is_mandatory: auth == ClientAuth::Required,
            }))
        }
    };
    let Identity { chain, key } = identity.clone();
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| BadMaterial::Together(error.to_string()))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(text);
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| describe(&error))?;
    if found.is_empty() { Err(describe(&pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn describe(error: &pem::Error) -> String {
    if matches!(error, pem::Error::NoItemsFound) {
        return "nothing of the kind stands in it".to_owned();
    }
    error.to_string()
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Tells whether what was refused is the very certificate that is trusted: one that signed itself
/// may be both, which is how a single `openssl req -x509` makes it. Its dates were looked at before.
fn is_its_own_authority(
    error: &Error,
    end_entity: &CertificateDer<'_>,
    trusted: &[CertificateDer<'_>],
) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(_)))
        && trusted.iter().any(|known| known == end_entity)
}

/// Checks servers and peers.
#[derive(Debug)]
struct ServerCheck {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let Trust { roots, certificates } = &self.trust;
        let checked = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            roots,
            intermediates,
            now,
            algorithms,
        );
        match checked {
            Err(error) if !is_its_own_authority(&error, end_entity, certificates) => Err(error),
            Ok(()) | Err(_) => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks clients.
#[derive(Debug)]
struct ClientCheck {
    inner: Arc<dyn ClientCertVerifier>,
    certificates: Vec<CertificateDer<'static>>,
    is_mandatory: bool,
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.inner.verify_client_cert(end_entity, intermediates, now) {
            Err(error) if is_its_own_authority(&error, end_entity, &self.certificates) => {
                Ok(ClientCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
