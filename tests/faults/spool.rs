//! `graphiteSpoolBytes`: over it the oldest flush goes, counted and said once.

use crate::common::daemon::Daemon;
use crate::common::graphite::Graphite;
use crate::common::{Dir, LOCAL, wait_until};
use crate::tools::{said_once, stat, wait_stat};

#[test]
fn over_the_bound_the_oldest_flush_goes() {
    const LIMIT: f64 = 100_000.0;
    let (dir, mut graphite) = (Dir::new(), Graphite::absent(false));
    let config = format!(
        "{{ {LOCAL}, flushInterval: 1000, graphiteSpoolBytes: {LIMIT}, {} }}",
        graphite.config()
    );
    let mut daemon = Daemon::start(&dir, &config);
    // Some 30 KB a flush, so that three fit.
    for block in 0..30 {
        let line = |n: usize| format!("name.{block}.{n}:1|c\n");
        daemon.send(&(0..15).map(line).collect::<String>());
    }
    let mut most = 0.0;
    wait_until("two dropped flushes", || {
        most = f64::max(most, stat(&daemon, "graphite.spool_bytes"));
        (stat(&daemon, "graphite.dropped_flushes") >= 2.0).then_some(())
    });
    assert!(most > LIMIT / 2.0 && most <= LIMIT, "{most} bytes");
    said_once(&daemon, "dropping the oldest flushes");
    let kept = stat(&daemon, "graphite.spool_flushes");
    graphite.up();
    wait_stat(&daemon, "graphite.spool_flushes", |count| count == 0.0);
    let flushes = graphite.flushes();
    assert!(flushes.len() as f64 >= kept);
    // The ones that are left are the newest, whole, oldest first.
    let order: Vec<u64> = flushes.iter().map(|flush| flush[0].timestamp).collect();
    assert!(order.is_sorted(), "{order:?}");
    let counts = flushes
        .iter()
        .map(|flush| flush.iter().filter(|p| p.name.contains("name.")).count());
    assert!(counts.clone().all(|count| count == 900), "{counts:?}");
    let sum: f64 = graphite.sum("stats_counts.name.0.0");
    assert_eq!(sum, 0.0, "the first flush is the one that went");
    daemon.wait_line("nothing undelivered any more");
    daemon.stop();
}
