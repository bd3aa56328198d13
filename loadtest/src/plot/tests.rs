use super::*;

fn plot(points: &[(f64, Option<f64>)]) -> Plot {
    let mut plot = Plot::new("a <b>", Axis::new("seconds", Kind::Time), Axis::new("ms", Kind::Linear));
    plot.line("l", Look::default(), points.iter().copied());
    plot
}

#[test]
fn nothing_to_draw_is_no_plot() {
    assert_eq!(plot(&[]).svg(), None);
    assert_eq!(plot(&[(1.0, None)]).svg(), None);
}

#[test]
fn a_gap_interrupts_the_line_and_a_lone_value_is_a_dot() {
    let points = [(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(1.0)), (4.0, None)];
    let svg = plot(&points).svg().expect("drawn");
    assert_eq!(svg.matches("class=\"line").count(), 1);
    assert_eq!(svg.matches("<circle").count(), 1);
}

#[test]
fn text_of_others_cannot_leave_its_place() {
    assert!(plot(&[(0.0, Some(1.0))]).svg().expect("drawn").contains("aria-label=\"a &lt;b&gt;\""));
    assert_eq!(escape("<a href='x'>&\"\u{1}"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot; ");
}

#[test]
fn a_threshold_far_above_the_values_does_not_flatten_them() {
    let mut plot = plot(&[(0.0, Some(1.0)), (1.0, Some(2.0))]);
    plot.thresholds = vec![
        Threshold { value: 3.0, label: "near".into() },
        Threshold { value: 1_000.0, label: "far".into() },
    ];
    let svg = plot.svg().expect("drawn");
    assert!(svg.contains("near") && !svg.contains("far"));
}

#[test]
fn marks_that_are_close_share_a_label_and_those_outside_are_left_out() {
    let mut plot = plot(&[(0.0, Some(1.0)), (100.0, Some(2.0))]);
    plot.marks = vec![10.0, 50.0, 50.5, 51.0, 200.0];
    let svg = plot.svg().expect("drawn");
    let labels: Vec<&str> = svg.lines().filter(|line| line.contains("class=\"mark middle\"")).collect();
    assert_eq!(labels.len(), 2);
    assert!(labels[0].contains(">1<") && labels[1].contains(">2–4<"), "{labels:?}");
    assert_eq!(svg.matches("<path class=\"mark\"").count(), 4);
}
