"""Description of the data of the experiments on photographs."""

GTSRB = "GTSRB (copy at 32x32, every third frame), ten classes, at 16x16 pixels"
CIFAR10 = "CIFAR-10 (JPEG copy), four classes, at 16x16 pixels"
BOTH = f"{GTSRB}, 2,000 synthetic images; {CIFAR10}, 1,000; 1,000 real images each"
