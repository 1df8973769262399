//! A `sentinel.conf` as the section `sentinel`, and which server of the pools is which master.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::diagnostic::{Diagnostic, quoted};
use super::super::nutcracker::{Config, HostPort};
use super::super::sentinel::{self as conf, Master, PORT_DEFAULT};
use super::attach::attach;
use super::value::format_time;
use super::write::{Old, Writer, host_port, scalar_text};

/// Writes the section, and says in `pools` which server is which master.
///
/// # Errors
///
/// What is wrong with the file.
pub(super) fn write(
    writer: &mut Writer<'_>,
    old: Old<'_>,
    pools: &mut Config,
) -> Result<(), Vec<Diagnostic>> {
    let conf::Parsed { config, diagnostics } = conf::parse(old.name, old.text);
    let Some(config) = config else { return Err(diagnostics) };
    attach(pools, &config.masters);
    let name = quoted(old.name);
    writer.comment(
        0,
        &format!(
            "From {name}. The servers below whose addresses are those of its masters follow them \
             from here on, so that no script has to change this file."
        ),
    );
    for Diagnostic { line, message, .. } in &diagnostics {
        writer.comment(0, &format!("{name}, line {line}: {message}."));
    }
    writer.out.push_str("sentinel:\n  mode: own\n");
    let listen = listen(&config);
    let _ = writeln!(writer.out, "  listen: {}", scalar_text(&listen));
    announce(writer, &config);
    hosts(writer, &config);
    state(writer, &config);
    secrets(writer, &config);
    left_out(writer, &config);
    writer.out.push_str("  masters:\n");
    for master in &config.masters {
        write_master(writer, master, pools);
    }
    writer.out.push('\n');
    Ok(())
}

fn listen(config: &conf::Config) -> String {
    let port = config.server.port.unwrap_or(PORT_DEFAULT);
    if port == 0 {
        return "off".to_owned();
    }
    let hosts = config.server.bind.iter().map(|host| host.trim_start_matches('-'));
    let host = hosts.clone().next().filter(|_| hosts.count() == 1).unwrap_or("*");
    let host = if matches!(host, "*" | "::*") { "0.0.0.0" } else { host };
    host_port(&HostPort { host: host.to_owned(), port })
}

fn announce(writer: &mut Writer<'_>, config: &conf::Config) {
    if config.server.bind.len() > 1 {
        writer.comment(2, "\"bind\" has several addresses; one is all that \"listen\" takes.");
    }
    if config.announce_ip.is_none() && config.announce_port.is_none() {
        return;
    }
    let port = config.announce_port.or(config.server.port).unwrap_or(PORT_DEFAULT);
    match &config.announce_ip {
        Some(host) => {
            let at = host_port(&HostPort { host: host.clone(), port });
            let _ = writeln!(writer.out, "  announce: {}", scalar_text(&at));
        }
        None => writer.comment(
            2,
            &format!("announce-port {port} needs this host's address: \"announce: host:{port}\"."),
        ),
    }
}

fn hosts(writer: &mut Writer<'_>, config: &conf::Config) {
    writer.comment(
        2,
        "Name every host that runs a Sentinel, and `ringkeeper check` tells whether enough are left \
         when one is gone. Two are not; a third needs no pools.",
    );
    let mut known: Vec<&str> = (config.masters.iter())
        .flat_map(|master| &master.known_sentinels)
        .map(|peer| peer.address.host())
        .collect();
    known.sort_unstable();
    known.dedup();
    if known.is_empty() {
        writer.out.push_str("  #hosts: []\n");
        return;
    }
    let known: Vec<String> = known.into_iter().map(scalar_text).collect();
    let _ = writeln!(writer.out, "  hosts: [localhost, {}]", known.join(", "));
}

fn state(writer: &mut Writer<'_>, config: &conf::Config) {
    let Some(id) = config.myid else { return };
    writer.comment(
        2,
        &format!(
            "What the Sentinel {id} had learnt and promised is not carried over: this one begins \
             with an ID of its own and learns the rest from the others within seconds. Tell them to \
             forget the old one: SENTINEL RESET NAME at each, one after the other."
        ),
    );
}

fn secrets(writer: &mut Writer<'_>, config: &conf::Config) {
    let is_set = config.server.requirepass.is_some() || config.sentinel_pass.is_some();
    if is_set {
        writer.comment(2, "The password of requirepass or sentinel-pass belongs in this file.");
        writer.out.push_str("  password_file: sentinel.password\n");
    }
    if let Some(user) = &config.sentinel_user {
        writer.comment(
            2,
            &format!("sentinel-user {} is not supported: the default user is.", quoted(user)),
        );
    }
}

/// Says what has no place here.
fn left_out(writer: &mut Writer<'_>, config: &conf::Config) {
    if !config.deny_scripts_reconfig {
        writer.comment(
            2,
            "deny-scripts-reconfig no is not supported: scripts are set in this file only.",
        );
    }
    if config.announce_hostnames {
        writer.comment(2, "announce-hostnames is not supported: addresses are told as addresses.");
    }
    let server = &config.server;
    if server.dir.is_some() || server.logfile.is_some() || server.pidfile.is_some() {
        writer.comment(
            2,
            "dir, logfile and pidfile are left out: \"log.file\" says where the log goes, and the \
             service manager does the rest.",
        );
    }
}

fn write_master(writer: &mut Writer<'_>, master: &Master, pools: &Config) {
    let is_its = |shard: &Option<String>| shard.as_deref() == Some(master.name.as_str());
    let its_pool =
        pools.pools.iter().find(|pool| pool.servers.iter().any(|one| is_its(&one.shard)));
    let of_pool = its_pool.and_then(|pool| pool.redis_auth.as_ref());

    let _ = writeln!(writer.out, "    {}:", scalar_text(master.name.as_str()));
    let mut key = |key: &str, value: &str| {
        let _ = writeln!(writer.out, "      {key}: {value}");
    };
    key("address", &scalar_text(&master.monitor.address.to_string()));
    key("quorum", &master.monitor.quorum.to_string());
    key("down_after", &format_time(Duration::from_millis(master.down_after_ms)));
    key("failover_timeout", &format_time(Duration::from_millis(master.failover_timeout_ms)));
    key("parallel_syncs", &master.parallel_syncs.to_string());
    if let Some(user) = &master.auth_user {
        key("auth_user", &scalar_text(user));
    }
    if let Some(script) = &master.notification_script {
        key("notification_script", &scalar_text(script));
    }
    if master.auth_pass.is_some() && master.auth_pass.as_ref() != of_pool {
        writer.comment(6, "The password of auth-pass belongs in this file.");
        let file = scalar_text(&format!("{}.password", master.name.as_str().replace('/', "_")));
        let _ = writeln!(writer.out, "      auth_password_file: {file}");
    }
    if let Some(script) = &master.client_reconfig_script {
        writer.comment(
            6,
            "Left out: the pools follow their masters without it, and a script that restarts the \
             proxy would cut its clients off. If others need it, take the \"#\" away.",
        );
        let _ = writeln!(writer.out, "      #client_reconfig_script: {}", scalar_text(script));
    }
    if master.reboot_down_after_ms != 0 {
        writer.comment(6, "master-reboot-down-after-period is not supported.");
    }
    if !master.renamed_commands.is_empty() {
        writer.comment(6, "rename-command is not supported: the servers' own names are used.");
    }
}
