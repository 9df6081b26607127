"""What people trust a terminal with: that nothing is lost, that nothing hangs, that programs work in it."""
