mod backoff; mod ending; mod gate; mod generation; mod lines; mod messages; mod pool;
#[cfg(test)] mod simulation;
fn main(){}
