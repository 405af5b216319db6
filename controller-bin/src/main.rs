use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let done = agentic_controller::run(&agentic_controller::Args::parse(), &mut std::io::stdout().lock());
    match &done {
        // The reader had enough (`| head`).
        Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => Ok(()),
        _ => done,
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}
