//! The recordings, cut into pieces.

/// What a Sentinel of Redis 7.0.15 answered.
pub(crate) const REDIS: &str = include_str!("../vectors/sentinel/transcript-redis-7.0.15.txt");
/// What a Sentinel of Valkey answered.
pub(crate) const VALKEY: &str = include_str!("../vectors/sentinel/transcript-valkey-unstable.txt");
/// What Sentinels sent to servers and to a peer.
pub(crate) const WIRE: &str = include_str!("../vectors/sentinel/wire-log.txt");

/// Returns the lines below a `####` heading.
pub(crate) fn section<'a>(transcript: &'a str, heading: &str) -> &'a str {
    let (_, rest) = transcript.split_once(&format!("#### {heading}\n")).unwrap();
    let end = ["\n####", "\n> "].iter().filter_map(|mark| rest.find(mark)).min();
    rest.get(..end.map_or(rest.len(), |end| end + 1)).unwrap()
}

/// Returns the `nth` reply to a command, its tokens with a space behind each.
pub(crate) fn reply<'a>(transcript: &'a str, command: &str, nth: usize) -> &'a str {
    let mark = format!("> {command}\n  ");
    let (at, _) = transcript.match_indices(&mark).nth(nth).unwrap();
    let rest = &transcript[at + mark.len()..];
    &rest[..rest.find('\n').unwrap()]
}

/// Undoes the escapes of the wire log.
pub(crate) fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").into_bytes()
}

/// Returns each `from` and what was sent to or answered by the fake peer.
pub(crate) fn peer_lines(answers: bool) -> Vec<Vec<u8>> {
    let mark = if answers { " peer        answered " } else { " peer     *" };
    WIRE.lines()
        .filter_map(|line| line.split_once(mark))
        .map(|(_, text)| unescaped(&if answers { text.to_owned() } else { format!("*{text}") }))
        .collect()
}
