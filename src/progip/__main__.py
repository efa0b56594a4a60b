from progip.cli import main

main()
