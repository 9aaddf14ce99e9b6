//! Faults on demand, for one copy of a service.

use std::sync::Mutex;
use std::time::Duration;

use veer_core::time::parse_duration;

/// How the copy misbehaves; by default it does not.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    now: Mutex<Settings>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    delay: Duration,
    fail: f64,
}

impl Fault {
    /// Takes `delay=<duration>&fail=<ratio>`; what is left out is off.
    pub(crate) fn set(&self, query: &str) -> Result<(), String> {
        let mut settings = Settings::default();
        for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('=')) {
            match name {
                "delay" => settings.delay = parse_duration(value)?,
                "fail" => {
                    settings.fail =
                        value.parse().ok().filter(|r| (0.0..=1.0).contains(r)).ok_or("fail must be between 0 and 1")?;
                }
                _ => return Err(format!("{name:?} is no fault: say delay or fail")),
            }
        }
        *self.now.lock().unwrap_or_else(|e| e.into_inner()) = settings;
        Ok(())
    }

    /// Waits as asked, and says whether to fail.
    pub(crate) async fn strike(&self) -> bool {
        let settings = *self.now.lock().unwrap_or_else(|e| e.into_inner());
        if !settings.delay.is_zero() {
            tokio::time::sleep(settings.delay).await;
        }
        settings.fail > 0.0 && fastrand::f64() < settings.fail
    }
}
