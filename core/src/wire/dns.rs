//! One question to a name server, and whether it was answered. Source: RFC 1035 section 4.

/// Why a reply does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is no reply to this question.
    Foreign,
    /// The server says that something is wrong: its code.
    Failed(u8),
}

/// Longest label, bytes.
const LABEL_BYTES_MAX: usize = 63;

/// Longest name, bytes with the lengths of its labels.
const NAME_BYTES_MAX: usize = 255;

/// Writes a question for the records of a type that a name has; none if the name cannot be one.
pub fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let start = bytes.len();
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        let len = u8::try_from(label.len()).ok().filter(|_| label.len() <= LABEL_BYTES_MAX)?;
        bytes.push(len);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() - start > NAME_BYTES_MAX {
        return None;
    }
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    Some(bytes)
}

/// Tells whether bytes answer the question of this identifier.
///
/// # Errors
///
/// [`Unfit`].
pub fn judge(bytes: &[u8], id: u16) -> Result<(), Unfit> {
    let Some((head, _)) = bytes.split_first_chunk::<12>() else { return Err(Unfit::Foreign) };
    let [high, low, flags, more, ..] = *head;
    if u16::from_be_bytes([high, low]) != id || flags & 0x80 == 0 {
        return Err(Unfit::Foreign);
    }
    match more & 15 {
        0 => Ok(()),
        code => Err(Unfit::Failed(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_its_name_in_labels() {
        let bytes = question(0x0102, "a.example.", 1).unwrap();
        let expected = b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01";
        assert_eq!(bytes, expected);
        assert_eq!(question(1, ".", 6).unwrap().len(), 12 + 5);
        assert_eq!(question(1, &"x".repeat(64), 1), None);
        assert_eq!(question(1, &"x.".repeat(200), 1), None);
    }

    #[test]
    fn a_reply_is_one_by_its_number_and_its_code() {
        let mut reply = question(7, "a", 1).unwrap();
        assert_eq!(judge(&reply, 7), Err(Unfit::Foreign), "the question itself");
        reply[2] |= 0x80;
        assert_eq!(judge(&reply, 7), Ok(()));
        assert_eq!(judge(&reply, 8), Err(Unfit::Foreign));
        reply[3] = 3;
        assert_eq!(judge(&reply, 7), Err(Unfit::Failed(3)));
        assert_eq!(judge(&reply[..11], 7), Err(Unfit::Foreign));
    }
}
