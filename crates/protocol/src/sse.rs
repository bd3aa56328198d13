//! Server-sent events: the framing of streamed answers.
//!
//! Writers here emit one `data:` line an event. The reader accepts what the standard allows from any server: CRLF,
//! comments, several `data:` lines, events cut anywhere by the network.

/// The data of the event that ends every stream.
pub const DONE: &str = "[DONE]";

/// Frames one event whose data has no line break, as JSON has none.
pub fn event(data: &str) -> String {
    debug_assert!(!data.contains(['\n', '\r']), "data of an event must be one line");
    format!("data: {data}\n\n")
}

/// Makes one line of an event's data that came in several: JSON has line breaks only between tokens, where a space means
/// the same.
pub fn to_one_line(json: &mut [u8]) {
    json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

/// Collects bytes and gives back the data of each event that is complete.
#[derive(Debug, Default)]
pub struct EventReader {
    buffer: Vec<u8>,
    scanned: usize,
    data: Option<Vec<u8>>,
}

/// A stream sent one line longer than [`EventReader::LINE_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {} bytes", EventReader::LINE_BYTES_MAX)]
pub struct EventTooLong;

impl EventReader {
    /// The bound on one event: an answer's longest chunk is a few kilobytes, save for logprobs of a whole prompt.
    pub const LINE_BYTES_MAX: usize = 4 << 20;

    /// Adds bytes as the network brought them and returns the data of the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut line_start = 0;
        while let Some(length) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line_end = self.scanned + length;
            let line = trim_carriage_return(&self.buffer[line_start..line_end]);
            Self::take_line(&mut self.data, line, &mut events);
            line_start = line_end + 1;
            self.scanned = line_start;
        }
        self.buffer.drain(..line_start);
        self.scanned = self.buffer.len();
        let held = self.buffer.len() + self.data.as_ref().map_or(0, Vec::len);
        if held > Self::LINE_BYTES_MAX { Err(EventTooLong) } else { Ok(events) }
    }

    fn take_line(data: &mut Option<Vec<u8>>, line: &[u8], events: &mut Vec<Vec<u8>>) {
        if line.is_empty() {
            events.extend(data.take());
        } else if let Some(rest) = line.strip_prefix(b"data:") {
            let rest = rest.strip_prefix(b" ").unwrap_or(rest);
            match data {
                None => *data = Some(rest.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(rest);
                }
            }
        }
    }
}

fn trim_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_are_the_same_wherever_the_network_cuts(
            data in prop::collection::vec("[ -~]{1,40}", 1..10), cut in 1_usize..20,
        ) {
            let stream: String = data.iter().map(|data| event(data)).collect();
            let mut reader = EventReader::default();
            let mut read = Vec::new();
            for piece in stream.as_bytes().chunks(cut) {
                read.extend(reader.push(piece).expect("short"));
            }
            let expected: Vec<Vec<u8>> = data.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = EventReader::default().push(&bytes);
        }
    }

    #[test]
    fn comments_other_fields_and_carriage_returns_are_understood() {
        let mut reader = EventReader::default();
        let events = reader
            .push(b": ping\r\nevent: x\r\ndata: one\r\ndata:two\r\n\r\n\r\ndata: [DONE]\n\n")
            .expect("short");
        assert_eq!(events, vec![b"one\ntwo".to_vec(), DONE.as_bytes().to_vec()]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = EventReader::default();
        assert_eq!(reader.push(&vec![b'x'; EventReader::LINE_BYTES_MAX + 1]), Err(EventTooLong));
    }
}
