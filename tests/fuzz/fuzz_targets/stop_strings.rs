//! However a text is cut, what is emitted is the text before the first stop string, or all of it where there is none.

#![no_main]

use engine::stop::StopMatcher;
use libfuzzer_sys::fuzz_target;

/// Few and of one to four bytes each, so that stop strings and their beginnings are everywhere.
const ALPHABET: [char; 4] = ['a', 'b', 'é', '🦀'];

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<Vec<u8>>)| {
    let (stops, pieces) = input;
    let spell =
        |bytes: &Vec<u8>| bytes.iter().map(|byte| ALPHABET[usize::from(byte % 4)]).collect::<String>();
    let stops: Vec<String> = stops.iter().map(spell).collect();
    let pieces: Vec<String> = pieces.iter().map(spell).collect();
    let text = pieces.concat();
    let (expected, stop) = first_stop(&text, &stops);

    let longest = stops.iter().map(String::len).max().unwrap_or_default();
    let mut matcher = StopMatcher::new(stops);
    let (mut given, mut emitted, mut stopped) = (0, String::new(), None);
    for piece in &pieces {
        let output = matcher.push(piece);
        given += piece.len();
        emitted.push_str(&output.text);
        stopped = output.stopped;
        assert!(expected.starts_with(&emitted), "{emitted} was emitted, of {expected}");
        assert!(stopped.is_some() || given - emitted.len() <= longest.saturating_sub(1), "too much is held");
    }
    emitted.push_str(&matcher.finish());
    assert_eq!((emitted.as_str(), stopped), (expected, stop));
});

/// By looking at every prefix: the text before the stop that is complete first, the longest of those.
fn first_stop<'t>(text: &'t str, stops: &[String]) -> (&'t str, Option<usize>) {
    for (at, last) in text.char_indices() {
        let prefix = &text[..at + last.len_utf8()];
        let complete =
            stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty() && prefix.ends_with(*stop));
        if let Some((which, stop)) = complete.min_by_key(|(_, stop)| std::cmp::Reverse(stop.len())) {
            return (&prefix[..prefix.len() - stop.len()], Some(which));
        }
    }
    (text, None)
}
