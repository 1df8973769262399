//! What HELP says.

use crate::wire::resp::encode;

/// Writes the lines.
pub(super) fn encode(lines: &[&str], out: &mut Vec<u8>) {
    encode::array_header(out, lines.len());
    lines.iter().for_each(|line| encode::simple(out, line));
}

/// Of CLIENT.
pub(super) const CLIENT: [&str; 9] = [
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Name of this connection.",
    "ID",
    "    Number of this connection.",
    "KILL <ip:port> | <option> <value> [...]",
    "    Close connections by ID, ADDR, TYPE or USER.",
    "LIST, INFO, SETNAME <name>",
    "    Tell of all connections, of this one; name this one.",
];

/// Of ACL.
pub(super) const ACL: [&str; 5] = [
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "LIST, USERS, WHOAMI",
    "    Tell of users.",
    "CAT, GENPASS, LOG",
    "    Tell of categories, draw a password, tell what was refused.",
];

/// Of COMMAND.
pub(super) const COMMAND: [&str; 5] = [
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "COUNT, LIST",
    "    How many commands there are, and which.",
    "INFO [<command-name> ...], DOCS [<command-name> ...]",
    "    Tell of commands.",
];

/// Of SENTINEL.
pub(super) const SENTINEL: [&str; 55] = [
    "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CKQUORUM <master-name>",
    "    Tell whether enough Sentinels can be reached to agree and to elect.",
    "CONFIG GET <param>",
    "    Tell what concerns this Sentinel.",
    "CONFIG SET <param> <value>",
    "    Change what concerns this Sentinel.",
    "DEBUG [<param> <value> ...]",
    "    Tell or change times, in milliseconds.",
    "EXPLAIN <master-name>",
    "    Tell why no fail-over is under way, and who could be promoted.",
    "FAILOVER <master-name> [COORDINATED]",
    "    Promote a replica though the master serves; nothing it acknowledged is lost.",
    "FLUSHCONFIG",
    "    Write the configuration and what was learnt.",
    "FORGET <master-name> <runid|ip:port>",
    "    Count a Sentinel no longer that is gone for good.",
    "GET-MASTER-ADDR-BY-NAME <master-name>",
    "GET-PRIMARY-ADDR-BY-NAME <master-name>",
    "    Tell where the master is.",
    "HELP",
    "    Print this.",
    "INFO-CACHE <master-name> [<master-name> ...]",
    "    Tell the last INFO of masters and their replicas.",
    "IS-MASTER-DOWN-BY-ADDR <ip> <port> <current-epoch> <runid>",
    "IS-PRIMARY-DOWN-BY-ADDR <ip> <port> <current-epoch> <runid>",
    "    Tell whether the master there is down, and vote.",
    "MASTER <master-name>",
    "PRIMARY <master-name>",
    "    Tell of one master.",
    "MASTERS",
    "PRIMARIES",
    "    Tell of all masters.",
    "MONITOR <name> <ip> <port> <quorum>",
    "    Watch another master.",
    "MYID",
    "    Tell who we are.",
    "PENDING-SCRIPTS",
    "    Tell which scripts run and wait.",
    "REMOVE <master-name>",
    "    Watch a master no longer.",
    "REPLICAS <master-name>",
    "SLAVES <master-name>",
    "    Tell of a master's replicas.",
    "RESET <pattern>",
    "    Forget replicas and Sentinels of masters, and find them again.",
    "SENTINELS <master-name>",
    "    Tell who else watches a master.",
    "SET <master-name> <option> <value> [<option> <value> ...]",
    "    Change settings of a master.",
    "SIMULATE-FAILURE [CRASH-AFTER-ELECTION] [CRASH-AFTER-PROMOTION] [HELP]",
    "    End the process at a bad moment.",
    "Times are in milliseconds.",
    "Names of masters are as in the configuration.",
    "Events are heard with SUBSCRIBE and PSUBSCRIBE.",
];
