//! Server-sent events, read where they lie. It understands what `protocol::sse::EventReader` does, and copies nothing
//! of an event that came whole, which nearly all do: a load tester reads as many as all of a server's clients together.

use protocol::sse::{EventReader, EventTooLong};

/// Finds the data of events in bytes as the network brought them.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    /// The `data:` lines of an event whose end has not come.
    data: Option<Vec<u8>>,
}

impl Events {
    /// Gives the data of each event that `bytes` complete to `take`, until that fails.
    pub(super) fn read<E: From<EventTooLong>>(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.line.is_empty() {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if let (None, Some(data), Some(after)) = (&self.data, data_of(line), empty_line(rest)) {
                    bytes = after;
                    take(data)?;
                } else {
                    self.take_line(line, &mut take)?;
                }
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(whole.strip_suffix(b"\r").unwrap_or(&whole), &mut take)?;
                whole.clear();
                self.line = whole;
            }
        }
        self.line.extend_from_slice(bytes);
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held > EventReader::LINE_BYTES_MAX { Err(EventTooLong.into()) } else { Ok(()) }
    }

    fn take_line<E>(&mut self, line: &[u8], take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if line.is_empty() {
            return self.data.take().map_or(Ok(()), |data| take(&data));
        }
        if let Some(more) = data_of(line) {
            match &mut self.data {
                None => self.data = Some(more.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(more);
                }
            }
        }
        Ok(())
    }
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    let data = line.strip_prefix(b"data:")?;
    Some(data.strip_prefix(b" ").unwrap_or(data))
}

/// What follows an empty line, if one stands here.
fn empty_line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(b"\n").or_else(|| bytes.strip_prefix(b"\r\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut events, mut read) = (Events::default(), Vec::new());
        for piece in pieces {
            let take = |data: &[u8]| {
                read.push(data.to_vec());
                Ok::<(), EventTooLong>(())
            };
            events.read(piece, take).expect("short");
        }
        read
    }

    proptest! {
        #[test]
        fn it_reads_what_the_protocols_reader_reads_wherever_the_network_cuts(
            lines in prop::collection::vec(
                prop::sample::select(vec!["data: {\"a\":1}", "data:b", "data: ", ": ping", "event: x", "", "", "x"]),
                0..30,
            ),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n"]), 30),
            cut in 1_usize..30,
        ) {
            let stream: String = lines.iter().zip(&ends).map(|(line, end)| format!("{line}{end}")).collect();
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(cut).collect();
            let mut reader = EventReader::default();
            let expected: Vec<Vec<u8>> =
                pieces.iter().flat_map(|piece| reader.push(piece).expect("short")).collect();
            prop_assert_eq!(read(&pieces), expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&[&bytes]);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let endless = vec![b'x'; EventReader::LINE_BYTES_MAX + 1];
        assert_eq!(Events::default().read(&endless, |_| Ok::<(), EventTooLong>(())), Err(EventTooLong));
    }
}
