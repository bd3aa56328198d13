use super::*;

fn page(pairs: &[(&'static str, f64)]) -> Result<BTreeMap<&'static str, f64>, String> {
    Ok(pairs.iter().copied().collect())
}

fn two_sources() -> TargetMetrics {
    TargetMetrics::new(vec!["http://a".into(), "http://b".into(), TESTER.into()], None)
}

#[test]
fn every_series_has_a_value_or_none_for_each_moment() {
    let mut read = two_sources();
    read.push(0.0, vec![page(&[]), Err("refused".into()), page(&[(names::CPU, 1.0)])]);
    read.push(1.0, vec![page(&[(names::RUNNING, 2.0)]), page(&[(names::RUNNING, 3.0)]), page(&[])]);
    read.push(2.0, vec![page(&[]), page(&[(names::RUNNING, 4.0)]), page(&[])]);
    assert_eq!(read.sources[0].series[names::RUNNING], [None, Some(2.0), None]);
    assert_eq!(read.sources[1].series[names::RUNNING], [None, Some(3.0), Some(4.0)]);
    assert_eq!(read.sources[1].error.as_deref(), Some("refused"));
    assert_eq!(read.sum(names::RUNNING), [(1.0, 5.0), (2.0, 4.0)]);
    assert_eq!(read.max(names::RUNNING), [(1.0, 3.0), (2.0, 4.0)]);
    assert_eq!((read.sum(names::CPU), read.of_tester(names::CPU)), (vec![], vec![(0.0, 1.0)]));
}

#[test]
fn a_long_run_keeps_half_of_its_moments() {
    let mut read = two_sources();
    let mut thinned = 0;
    for second in 0..TargetMetrics::TIMES_MAX {
        let pages = vec![page(&[(names::RUNNING, second as f64)]), page(&[]), page(&[])];
        read.push(second as f64, pages);
        thinned += u32::from(read.thin_out());
    }
    assert_eq!((thinned, read.times_s.len()), (1, TargetMetrics::TIMES_MAX / 2));
    assert!(read.sum(names::RUNNING).iter().all(|(at_s, value)| at_s == value));
}

#[test]
fn a_counters_rate_starts_anew_when_its_process_does() {
    let counter = [(0.0, 10.0), (2.0, 14.0), (3.0, 1.0), (3.0, 1.0)];
    assert_eq!(rates(&counter), [(2.0, 2.0), (3.0, 1.0)]);
}

#[test]
fn a_server_that_starts_anew_does_not_disturb_the_others_rates() {
    let mut read = two_sources();
    for (at_s, one, other) in [(0.0, 10.0, 100.0), (1.0, 11.0, 101.0), (2.0, 0.5, 102.0)] {
        read.push(at_s, vec![page(&[(names::CPU, one)]), page(&[(names::CPU, other)]), page(&[])]);
    }
    assert_eq!(read.rate(names::CPU), [(1.0, 2.0), (2.0, 1.5)]);
    assert_eq!((read.growth(names::CPU), read.growth(names::STEPS)), (Some(3.5), None));
}

#[test]
fn only_this_machines_addresses_are_loopback() {
    for address in ["http://127.0.0.1:80", "http://localhost:8000", "http://[::1]:1", "http://127.8.0.1/x"] {
        assert!(is_loopback(address), "{address}");
    }
    for address in ["http://10.0.0.1", "http://127.example", "nothing"] {
        assert!(!is_loopback(address), "{address}");
    }
}

#[tokio::test]
async fn a_target_without_metrics_is_fine() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let reader = Reader::new(&[address, "no address at all".into()]);
    let pages = reader.read().await;
    assert!(pages.iter().all(Result::is_err), "{pages:?}");
}
