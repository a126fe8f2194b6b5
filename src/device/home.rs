//! Which device something lies on: tensors, layers and buffers of two devices do not mix.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The device of a context, and the number that tells contexts apart in messages.
#[derive(Clone)]
pub(crate) struct Home {
    device: wgpu::Device,
    number: u64,
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "context {} ({})", self.number, self.device.adapter_info().name)
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Home {
    pub(crate) fn new(device: wgpu::Device) -> Self {
        static CONTEXTS: AtomicU64 = AtomicU64::new(1);
        Self { device, number: CONTEXTS.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Refuses what lies on another device. Contexts that were made from clones of one device are
    /// the same home.
    pub(crate) fn check(&self, what: &str, other: &Self) -> Result<()> {
        if self.number == other.number || is_same(&self.device, &other.device) {
            return Ok(());
        }
        Err(Error::OtherDevice {
            what: what.into(),
            found: other.to_string(),
            expected: self.to_string(),
        })
    }

    /// Whether the device is lost: then it reports no mistakes.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn is_lost(&self) -> bool {
        !hears(&self.device, || mistake(&self.device))
    }

    /// Refuses a buffer that is destroyed or of another device.
    ///
    /// wgpu looks buffers up by numbers that each of its instances counts anew, so that a buffer
    /// of another instance would be taken for one of this device's own, or not be found, which
    /// panics. What does tell is where a buffer reports a mistake: unmapping one that is not
    /// mapped is reported to the error scopes of its own device. Mapped and mappable buffers are
    /// left alone; wgpu checks them when they are bound, though not against other instances.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn check_buffer(&self, what: &str, buffer: &wgpu::Buffer) -> Result<()> {
        let mappable = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE;
        if buffer.size() < 4 || buffer.usage().intersects(mappable) {
            return Ok(());
        }
        // This alone is told without a report.
        let state =
            buffer.get_mapped_range(0..4).err().map(|error| error.to_string()).unwrap_or_default();
        if state.contains("destroyed") {
            return Err(Error::Refused {
                what: what.into(),
                message: "its buffer was destroyed".into(),
            });
        }
        let unmap = || {
            // A device without a handler of its own panics where no scope hears the report.
            let unmap = std::panic::AssertUnwindSafe(|| buffer.unmap());
            drop(std::panic::catch_unwind(unmap));
        };
        // A device that is lost reports nothing; whatever is done next says that it is lost.
        if !state.contains("not mapped") || hears(&self.device, unmap) || self.is_lost() {
            return Ok(());
        }
        Err(Error::OtherDevice {
            what: format!("the buffer of {what}"),
            found: "another device".into(),
            expected: self.to_string(),
        })
    }

    /// The browser refuses buffers of other devices and destroyed ones when they are used, and
    /// reports them to the device's handler.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn check_buffer(&self, _: &str, _: &wgpu::Buffer) -> Result<()> {
        Ok(())
    }
}

/// Whether two handles are one device. wgpu compares them by a number that each of its instances
/// counts anew, so that unequal numbers are a proof and equal ones are none. Error scopes are: of
/// two around a mistake on `a`, the inner one hears of it if it is on the same device.
#[cfg(not(target_arch = "wasm32"))]
fn is_same(a: &wgpu::Device, b: &wgpu::Device) -> bool {
    a == b
        && !hears(a, || {
            hears(b, || mistake(a));
        })
}

#[cfg(target_arch = "wasm32")]
fn is_same(a: &wgpu::Device, b: &wgpu::Device) -> bool {
    a == b
}

/// Whether a mistake that `make` makes is reported to a scope of this device.
#[cfg(not(target_arch = "wasm32"))]
fn hears(device: &wgpu::Device, make: impl FnOnce()) -> bool {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    make();
    pollster::block_on(scope.pop()).is_some()
}

/// A buffer for no use, which no device takes.
#[cfg(not(target_arch = "wasm32"))]
fn mistake(device: &wgpu::Device) {
    let usage = wgpu::BufferUsages::empty();
    drop(device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage,
        mapped_at_creation: false,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_buffers_are_told_apart_by_their_reports() {
        let devices = [(); 2].map(|()| wgpu::Device::noop(&wgpu::DeviceDescriptor::default()).0);
        let [one, two] = devices.clone().map(Home::new);
        let again = Home::new(devices[0].clone());
        assert_eq!(devices[0], devices[1], "wgpu tells devices of two instances as one");
        one.check("x", &again).expect("the same device");
        let text = one.check("x", &two).expect_err("another device").to_string();
        let numbers = [&two, &one].map(|home| home.number);
        assert!(
            text.contains(&format!("context {} (", numbers[0]))
                && text.contains(&format!("context {} (", numbers[1])),
            "{text}"
        );

        let buffer = |device: &wgpu::Device, mapped_at_creation| {
            let usage = wgpu::BufferUsages::STORAGE;
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 16,
                usage,
                mapped_at_creation,
            })
        };
        devices[1].on_uncaptured_error(std::sync::Arc::new(|_| {}));
        let [own, other, mapped] =
            [buffer(&devices[0], false), buffer(&devices[1], false), buffer(&devices[0], true)];
        one.check_buffer("x", &own).expect("its own");
        again.check_buffer("x", &own).expect("its own");
        assert!(matches!(one.check_buffer("x", &other), Err(Error::OtherDevice { .. })));
        let view = mapped.get_mapped_range_mut(..).expect("mapped");
        one.check_buffer("x", &mapped).expect("mapped buffers pass, and stay mapped");
        drop(view);
        mapped.get_mapped_range(..).expect("still mapped");
        own.destroy();
        assert!(matches!(one.check_buffer("x", &own), Err(Error::Refused { .. })));
    }
}
