//! From the files that a `sentinel.conf` names to what handshakes need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ringkeeper_core::config::sentinel::{AuthClients, Tls};
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::tls::{self, ClientAuth, Ground, Identity, Plan, Trust, Versions};

/// Largest file with certificates or a key, bytes; the CAs of a whole system have a quarter.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads what the configuration names. `listeners` are those for encrypted clients. None is
/// returned where nothing is encrypted.
///
/// # Errors
///
/// Which file or directive is at fault, and why.
pub(crate) fn plan(tls: &Tls, listeners: BTreeSet<ListenerId>) -> anyhow::Result<Option<Plan>> {
    if listeners.is_empty() && !tls.replication {
        return Ok(None);
    }
    let ground = ground(versions(&tls.protocols));
    let trust = trust(tls)?;
    let own = identity("tls-cert-file", tls.cert_file.as_deref(), tls.key_file.as_deref())?;
    let mut plan = Plan::default();
    if !listeners.is_empty() {
        let own = own.as_ref();
        let own = own.context("tls-port needs tls-cert-file and tls-key-file")?;
        let auth = match tls.auth_clients {
            AuthClients::Yes => ClientAuth::Required,
            AuthClients::Optional => ClientAuth::Optional,
            AuthClients::No => ClientAuth::Off,
        };
        let config = tls::server(&ground, own, &trust, auth).context(
            "tls-port: tls-cert-file, tls-key-file, tls-ca-cert-file or tls-ca-cert-dir",
        )?;
        plan.clients = Some((listeners, config));
    }
    if tls.replication {
        let other = identity(
            "tls-client-cert-file",
            tls.client_cert_file.as_deref(),
            tls.client_key_file.as_deref(),
        )?;
        let config = tls::client(&ground, other.as_ref().or(own.as_ref()), &trust)
            .context("tls-replication: tls-ca-cert-file or tls-ca-cert-dir")?;
        plan.servers = Some(config);
    }
    Ok(Some(plan))
}

/// Returns what cryptography needs of a host.
pub(crate) fn ground(versions: Versions) -> Ground {
    Ground {
        provider: Arc::new(rustls::crypto::ring::default_provider()),
        clock: Arc::new(rustls::time_provider::DefaultTimeProvider),
        versions,
    }
}

fn versions(names: &[String]) -> Versions {
    let has = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    Versions { has_1_2: has("TLSv1.2"), has_1_3: has("TLSv1.3") }
}

fn identity(
    directive: &str,
    certificate: Option<&str>,
    key: Option<&str>,
) -> anyhow::Result<Option<Identity>> {
    let Some(certificate) = certificate else { return Ok(None) };
    // One file may hold both.
    let key = key.unwrap_or(certificate);
    let (chain, secret) = (read(Path::new(certificate))?, read(Path::new(key))?);
    let identity = Identity::from_pem(&chain, &secret);
    let identity = identity.with_context(|| format!("{directive}: {certificate} with {key}"))?;
    Ok(Some(identity))
}

fn trust(tls: &Tls) -> anyhow::Result<Trust> {
    let mut trust = Trust::default();
    if let Some(file) = &tls.ca_cert_file {
        let added = trust.add_pem(&read(Path::new(file))?);
        added.with_context(|| format!("tls-ca-cert-file: {file}"))?;
    }
    if let Some(folder) = &tls.ca_cert_dir {
        let listed = fs::read_dir(folder).with_context(|| format!("tls-ca-cert-dir: {folder}"))?;
        let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            // Such folders hold lists of revoked certificates and notes, too.
            if let Ok(text) = read(path)
                && let Err(error) = trust.add_pem(&text)
            {
                tracing::debug!("tls-ca-cert-dir: {}: {error}", path.display());
            }
        }
    }
    Ok(trust)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let length = fs::metadata(path).with_context(|| format!("{shown} can't be read"))?.len();
    anyhow::ensure!(length <= FILE_BYTES_MAX, "{shown} is too large for certificates");
    fs::read(path).with_context(|| format!("{shown} can't be read"))
}
