module random

go 1.20
