//! A panic of the CEL parser is an expression that does not compile: it runs on a thread of its own, and is no finding.
pub fn forgive() {
    let end_the_process = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("cel-parser") {
            end_the_process(info);
        }
    }));
}
