//! What the running service says of itself, asked for at its admin address.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::host::admin::AdminPlace;
use crate::host::listen::Address;
use crate::host::reason;

/// How long the service may take; it waits half a second for its own workers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest page that is read, bytes.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Asks for a page.
///
/// # Errors
///
/// What to tell the operator.
pub(super) fn page(place: &AdminPlace, path: &str) -> Result<String, String> {
    let AdminPlace::At(address) = place else {
        return Err("the service has no admin address to be asked at".to_owned());
    };
    let text = fetch(address, path).map_err(|error| {
        let why = reason(&error);
        format!("the service can't be asked at {address}: {why}; --admin says where it is")
    })?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("that is no answer of this service")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(body.trim_end().to_owned()) }
}

fn fetch(address: &Address, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut text = Vec::new();
    match address {
        Address::Unix { path, .. } => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            stream.take(PAGE_BYTES_MAX).read_to_end(&mut text)?;
        }
        // Nobody administers there.
        Address::Virtual(_) => return Err(io::ErrorKind::Unsupported.into()),
        Address::Tcp { host, port } => {
            let mut places = (host.as_str(), *port).to_socket_addrs()?;
            let place = places.next().ok_or(io::ErrorKind::NotFound)?;
            let mut stream = TcpStream::connect_timeout(&place, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            stream.take(PAGE_BYTES_MAX).read_to_end(&mut text)?;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Takes what is said about one master out of what is said about all.
///
/// # Errors
///
/// There is no such master; the message names those that are.
pub(super) fn about(text: &str, master: &str) -> Result<String, String> {
    let mut found = String::new();
    let mut names = Vec::new();
    let mut is_it = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("master ") {
            names.push(name);
            is_it = name == master;
        }
        if is_it {
            // Writing to a String can't fail.
            let _ = writeln!(found, "{line}");
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    if names.is_empty() {
        return Err("the service watches no masters".to_owned());
    }
    Err(format!("there is no master {master}; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_master_is_picked_out_of_all() {
        let text = "master a\n  at x\nmaster b\n  at y\n  +switch-master\n";
        assert_eq!(about(text, "b").unwrap(), "master b\n  at y\n  +switch-master\n");
        assert_eq!(about(text, "c").unwrap_err(), "there is no master c; there are a, b");
        assert!(about("nobody watches masters here\n", "a").is_err());
    }
}
