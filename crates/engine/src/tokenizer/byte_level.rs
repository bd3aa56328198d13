//! GPT-2's alphabet: a printable character for each byte, so that a vocabulary of text can hold any bytes.

use std::sync::LazyLock;

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Printable bytes of Latin-1 stand for themselves; the others follow from U+0100 on, in order.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut moved = 0;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if is_printable(byte) {
            return char::from(byte);
        }
        moved += 1;
        char::from_u32(0xFF + moved).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
});

/// The inverse; all characters of the alphabet lie below U+0144.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, character) in CHARACTERS.iter().enumerate() {
        bytes[*character as usize] = Some(byte as u8);
    }
    bytes
});

/// The alphabet, in the order of bytes.
pub(super) fn characters() -> &'static [char; 256] {
    &CHARACTERS
}

/// Appends the alphabet's characters for `text`'s bytes.
pub(super) fn write(text: &str, out: &mut String) {
    let characters = &*CHARACTERS;
    out.extend(text.bytes().map(|byte| characters[usize::from(byte)]));
}

/// The bytes that `token` spells, or its own where it isn't written in the alphabet.
pub(super) fn read(token: &str) -> Vec<u8> {
    let spelled: Option<Vec<u8>> = token.chars().map(|c| BYTES.get(c as usize).copied().flatten()).collect();
    spelled.unwrap_or_else(|| token.as_bytes().to_vec())
}
