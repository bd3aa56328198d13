//! A stream gives the same events wherever the network cuts it, and they are those of a reader that sees it whole.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::sse::{self, EventReader};

fuzz_target!(|stream: &[u8]| {
    let whole = read(stream, stream.len().max(1));
    assert_eq!(whole, simply(stream));
    for piece in [1, 2, 3, 7] {
        assert_eq!(read(stream, piece), whole, "in pieces of {piece}");
    }
    if let Ok(data) = std::str::from_utf8(stream)
        && !data.contains(['\n', '\r'])
    {
        assert_eq!(read(sse::event(data).as_bytes(), 5), [data.as_bytes()]);
    }
});

fn read(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut reader = EventReader::default();
    stream.chunks(piece).flat_map(|piece| reader.push(piece).expect("far below the bound")).collect()
}

/// Line by line. What no blank line ends is no event.
fn simply(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    let mut data: Vec<&[u8]> = Vec::new();
    let ended = stream.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    for line in stream[..ended].split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.strip_prefix(b"data:") {
            Some(rest) => data.push(rest.strip_prefix(b" ").unwrap_or(rest)),
            None if line.is_empty() && !data.is_empty() => {
                events.push(std::mem::take(&mut data).join(&b'\n'))
            }
            None => {}
        }
    }
    events
}
